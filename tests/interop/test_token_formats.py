"""FAR and LlamaGen's generators in and out: published sizes, round trips, what is refused, the command line."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import smalti
from smalti.config import build, config_of
from smalti.interop import ImportOptions
from smalti.interop._containers import Checkpoint
from smalti.interop._recognise import format_named, recognise
from smalti.interop._table import to_ours, to_theirs
from smalti.interop.conversion import config_from, export_state, import_checkpoint
from smalti.interop.converting import convert
from smalti.models import Model
from smalti.models._token_model import TokenModel
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError
from tests.cli.conftest import smalti_cli  # noqa: F401
from tests.interop.checkpoints import manifests, save, tiny_vq
from tests.models.generators import CAPTIONS, batch_of, make

PUBLISHED = {
    "fqgan_dual_FAR-B": ("far", 417_104_896),
    "fqgan_dual_FAR-L": ("far", 901_195_520),
    "fqgan_triple_FAR-B": ("far", 451_707_904),
    "fqgan_triple_FAR-L": ("far", 944_776_960),
    "llamagen_GPT-B_c2i_256": ("llamagen-gpt", 110_888_448),
    "llamagen_GPT-L_c2i_256": ("llamagen-gpt", 342_910_976),
    "llamagen_GPT-XL_c2i_256": ("llamagen-gpt", 774_699_520),
    "llamagen_GPT-XXL_c2i_256": ("llamagen-gpt", 1_410_972_672),
    "llamagen_GPT-3B_c2i_256": ("llamagen-gpt", 3_096_659_200),
}
HEADS = {"B": 16, "L": 20, "GPT-B": 12, "GPT-L": 16, "GPT-XL": 20, "GPT-XXL": 24, "GPT-3B": 32}
OPTIONS = ImportOptions(heads=2, grid=2)


def exportable(codebooks: int, **options: Any) -> TokenModel:
    """A small model that the originals can hold: a square grid, and MLPs as wide as theirs."""
    return make(codebooks, grid=(2, 2), hidden=None, **options).eval()


def written(model: TokenModel) -> dict[str, Tensor]:
    kind = format_named("far" if len(model.codebooks) > 1 else "llamagen-gpt")
    return export_state(model, kind).state


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_come_in_whole_and_go_out_under_the_same_keys(name: str) -> None:
    format, count = PUBLISHED[name]
    manifest = manifests()[name]
    state = {key: torch.empty(shape, device="meta") for key, (shape, _) in manifest.items()}
    kind = recognise(state.keys(), "auto", Path(name))
    assert kind.title == format_named(format).title
    table = kind.table(kind.layout(state.keys()))
    config = config_from(Checkpoint(Path(name), state), kind, table, ImportOptions())
    with on_meta_device():
        model = build(config, Model)
    assert sum(parameter.numel() for parameter in model.parameters()) == count
    size = name.removesuffix("_c2i_256").rpartition("_FAR-" if "FAR" in name else "_")[2]
    assert config["heads"] == HEADS[size]
    assert (config["num_classes"], config["grid"]) == (1000, [16, 16])
    made = to_ours(state, table, model.state_dict())
    assert not made.problems
    assert not made.dropped
    exported = to_theirs(model.state_dict(), table)
    assert not exported.problems
    assert {key: list(value.shape) for key, value in exported.state.items()} == {
        key: shape for key, (shape, _) in manifest.items()
    }


@pytest.mark.parametrize("codebooks", [0, 2, 3])
@pytest.mark.parametrize("options", [{}, {"kv_heads": 1}, {"num_classes": 0}])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_out_and_in_again_is_the_same_model(tmp_path: Path, codebooks: int, options: Any, suffix: str) -> None:
    model = exportable(codebooks, **options)
    model.save_pretrained(tmp_path / "ours")
    target = tmp_path / f"theirs{suffix}"
    done = convert(tmp_path / "ours", target, target_format="far" if codebooks else "llamagen-gpt")
    assert done.checks[0].inputs == "random tokens"
    assert done.checks[0].largest == 0.0
    back = convert(target, tmp_path / "again", options=OPTIONS)
    assert back.tensors == len(model.state_dict())
    assert not back.dropped
    again = smalti.load(tmp_path / "again")
    batch = batch_of(model)
    for one, two in zip(*(m.training_forward(batch).logits.values() for m in (model, again)), strict=True):
        assert torch.equal(one, two)


def test_captions_come_without_their_encoder(tmp_path: Path) -> None:
    model = exportable(0, **CAPTIONS)
    state = written(model)
    assert {key for key in state if key.startswith("cls_embedding.")} == {
        "cls_embedding.uncond_embedding",
        "cls_embedding.cap_proj.fc1.weight",
        "cls_embedding.cap_proj.fc2.weight",
    }
    found = import_checkpoint(save(tmp_path / "t2i.pt", {}, model=state), options=OPTIONS).model
    batch = batch_of(model)
    one, two = (m.training_forward(batch).logits.popitem()[1] for m in (model, found))
    assert torch.equal(one, two)


def test_what_a_sampling_left_behind_is_dropped_with_the_reason(tmp_path: Path) -> None:
    state = written(exportable(2))
    state |= {"layers.0.attention.kv_cache.k_cache": torch.zeros(2), "freqs_cis": torch.zeros(2)}
    found = import_checkpoint(save(tmp_path / "far.pt", state), options=OPTIONS)
    assert ["layers.0.attention.kv_cache.k_cache"] in found.dropped.values()
    assert sum(map(len, found.dropped.values())) == 2
    assert any("--grid" in note and "--heads" in note for note in found.notes)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, prefix: str) -> None:
    state = {f"{prefix}{key}": value for key, value in written(exportable(2)).items()}
    assert import_checkpoint(save(tmp_path / "far.pt", state), options=OPTIONS).format.title == "FAR (FQGAN)"


def test_averages_are_preferred(tmp_path: Path) -> None:
    state = written(exportable(0))
    ema = {key: value + 1.0 for key, value in state.items()}
    path = save(tmp_path / "gpt.pt", {}, model=state, ema=ema, steps=3)
    found = import_checkpoint(path, options=OPTIONS)
    assert torch.equal(found.model.state_dict()["norm.weight"], ema["norm.weight"])


def without(state: dict[str, Tensor], *keys: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key not in keys}


def test_files_that_do_not_fit_name_every_key(tmp_path: Path) -> None:
    state = written(exportable(2))
    cases = {
        "missing norm.weight": without(state, "norm.weight"),
        "missing ar_head.1.ffn_norm.weight": without(state, "ar_head.1.ffn_norm.weight"),
        "unexpected layers.0.attention.bias": {**state, "layers.0.attention.bias": torch.zeros(1)},
        "output_2.weight has shape (16, 5), expected (5, 16)": {**state, "output_2.weight": state["output_2.weight"].T},
        "it has 1 codebooks: expected 2 or 3": without(state, "tok_embeddings_2.weight", "output_2.weight"),
        "missing output_1.weight": without(state, "output_1.weight"),
    }
    for number, (message, broken) in enumerate(cases.items()):
        with pytest.raises(UserError, match=re.escape(message)):
            import_checkpoint(save(tmp_path / f"{number}.pt", broken), options=OPTIONS)
    path = save(tmp_path / "far.pt", state)
    with pytest.raises(UserError, match="heads=3: expected a divisor of the width 16"):
        import_checkpoint(path, options=ImportOptions(heads=3))
    with pytest.raises(UserError, match="not LlamaGen's GPT; it looks like far"):
        import_checkpoint(path, "llamagen-gpt")
    with pytest.raises(UserError, match=r"--scaling-factor 0\.2: has no effect on FAR"):
        import_checkpoint(path, options=ImportOptions(scaling_factor=0.2))


@pytest.mark.parametrize(
    ("model", "format", "message"),
    [
        (lambda: exportable(1), "far", "1 codebooks: expected 2 or 3"),
        (lambda: make(2, hidden=None), "far", "a grid of 2 x 3: expected a square"),
        (lambda: make(2, grid=(2, 2)), "far", "hidden=24: expected 256"),
        (lambda: exportable(2, class_position="rotated"), "far", "class_position='rotated': expected 'zeroed'"),
        (lambda: exportable(2, **CAPTIONS), "far", "conditioned on captions: FAR takes classes"),
        (lambda: exportable(2), "llamagen-gpt", "it is of the type 'far', expected 'gpt'"),
        (lambda: exportable(2), "fqgan", "it is of the type 'far', and no autoencoder"),
        (tiny_vq, "far", "it is of the type 'autoencoder', expected 'far'"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(model: Any, format: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        export_state(model(), format_named(format))


def test_a_language_model_is_none() -> None:
    keys = ["tok_embeddings.weight", "layers.0.attention.wq.weight", "norm.weight", "output.weight"]
    with pytest.raises(UserError, match="a model of language"):
        recognise(keys, "auto", Path("llama.pth"))


def test_a_run_is_started_from_and_reconstruct_refuses(tmp_path: Path, smalti_cli: Any) -> None:  # noqa: F811
    from smalti.interop.opening import start_config, start_state

    model = exportable(2)
    path = save(tmp_path / "far.safetensors", written(model))
    result = smalti_cli("convert", str(path), str(tmp_path / "ours"), "--heads", "2", "--grid", "2")
    assert "random tokens" in result.stdout
    assert "2 x 2 (--grid)" in result.stdout
    assert start_config(tmp_path / "ours")["codebooks"] == {"visual": 7, "semantic": 5}
    assert start_state(tmp_path / "ours").keys() == model.state_dict().keys()
    assert config_of(smalti.load(tmp_path / "ours"))["type"] == "far"
    refused = smalti_cli("reconstruct", str(tmp_path / "ours"), str(path), "--out", str(tmp_path / "out"))
    assert refused.exit_code == 2
    assert "a FAR, expected an autoencoder" in refused.stderr
