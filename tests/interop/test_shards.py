"""Weights in several files: all of them are one model, on every way in, and a wrong index is one message."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import smalti
from smalti.assembly.assemble import build_model
from smalti.assembly.recipe import load_recipe
from smalti.interop import opening
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state, import_checkpoint
from smalti.interop.converting import convert
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError
from tests.interop.checkpoints import save, tiny_kl

NAME = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def model() -> Autoencoder:
    return tiny_kl()


def same(found: Autoencoder, model: Autoencoder) -> bool:
    theirs, ours = found.state_dict(), model.state_dict()
    return theirs.keys() == ours.keys() and all(torch.equal(value, ours[key]) for key, value in theirs.items())


def sharded(folder: Path, state: dict[str, Tensor], index: str, suffix: str = ".safetensors", count: int = 3) -> Path:
    """The tensors dealt to several files, and the index that says where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{index.partition('.')[0]}-{number + 1:05d}-of-{count:05d}{suffix}" for number in range(count)]
    places = {key: names[number % count] for number, key in enumerate(state)}
    for name in names:
        save(folder / name, {key: value for key, value in state.items() if places[key] == name})
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    return folder / index


@pytest.mark.parametrize(
    ("index", "suffix"),
    [
        (f"{NAME}.safetensors.index.json", ".safetensors"),
        (f"{NAME}.safetensors.index.fp16.json", ".safetensors"),
        (f"{NAME}.fp16.safetensors.index.json", ".safetensors"),
        (f"{NAME}.bf16.safetensors.index.json", ".safetensors"),
        ("model.safetensors.index.json", ".safetensors"),
        ("pytorch_model.bin.index.json", ".bin"),
        (f"{NAME}.bin.index.json", ".bin"),
    ],
)
def test_shards_are_one_model_by_index_and_by_folder(
    model: Autoencoder, tmp_path: Path, index: str, suffix: str
) -> None:
    path = sharded(tmp_path / "vae", export_state(model, format_named("diffusers")).state, index, suffix)
    assert same(smalti.load(path), model)
    assert same(smalti.load(path.parent), model)


def test_shards_of_other_formats_behind_a_prefix_are_read_too(model: Autoencoder, tmp_path: Path) -> None:
    state = {f"first_stage_model.{key}": value for key, value in export_state(model, format_named("ldm")).state.items()}
    other = {"model.diffusion_model.out.0.weight": torch.zeros(3)}
    found = import_checkpoint(sharded(tmp_path, state | other, "sd.safetensors.index.json"))
    assert same(found.model, model)
    assert found.dropped == {
        "outside 'first_stage_model.': another network of the file": ["model.diffusion_model.out.0.weight"]
    }


def test_shards_convert_and_start_a_training(model: Autoencoder, tmp_path: Path) -> None:
    state = export_state(model, format_named("diffusers")).state
    path = sharded(tmp_path / "vae", state, f"{NAME}.safetensors.index.json")
    assert convert(path.parent, tmp_path / "ours").tensors == len(state)
    assert same(smalti.load(tmp_path / "ours"), model)
    for place in (path, path.parent):
        assert opening.start_config(place)["bottleneck"]["latent_channels"] == 4
        started = opening.start_state(place)
        assert all(torch.equal(value, started[key]) for key, value in model.state_dict().items())
    recipe = load_recipe("tiny-vae-kl-f8", [f"model={{init: {path.parent}}}"])
    assert same(build_model(recipe), model)


def test_a_folder_of_a_whole_file_and_shards_is_told_by_its_names(model: Autoencoder, tmp_path: Path) -> None:
    state = export_state(model, format_named("diffusers")).state
    other = {key: value + 1 for key, value in state.items()}
    sharded(tmp_path, other, f"{NAME}.fp16.safetensors.index.json")
    save(tmp_path / f"{NAME}.safetensors", state)
    assert same(smalti.load(tmp_path), model), "the file of no variant comes first"
    folder = tmp_path / "two"
    sharded(folder, state, "model.safetensors.index.json")
    save(folder / "ema.safetensors", other)
    with pytest.raises(UserError, match=r"name one: ema\.safetensors, model\.safetensors\.index\.json"):
        smalti.load(folder)


def test_shards_on_the_hub_are_all_asked_for(
    model: Autoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = sharded(
        tmp_path, export_state(model, format_named("diffusers")).state, f"{NAME}.safetensors.index.json", count=2
    )
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    asked = []

    def download(repository: str, name: str, options: dict[str, Any]) -> Path:
        asked.append(name)
        if not (tmp_path / name).is_file():
            raise UserError(name)
        return tmp_path / name

    monkeypatch.setattr(opening, "fetch", download)
    assert same(smalti.load("owner/name"), model)
    assert asked[-3:] == [index.name, f"{NAME}-00001-of-00002.safetensors", f"{NAME}-00002-of-00002.safetensors"]


def _first_shard(index: Path, *, key: str, name: str) -> None:
    """Lets the index say ``name`` of ``key``."""
    found = json.loads(index.read_text())
    found["weight_map"][key] = name
    index.write_text(json.dumps(found))


def _remove(index: Path) -> None:
    (index.parent / "m-00002-of-00003.safetensors").unlink()


def _twice(index: Path) -> None:
    whole = {"decoder.conv_in.bias": torch.zeros(64)}
    save(index.parent / "extra.safetensors", whole)
    _first_shard(index, key="more", name="extra.safetensors")


def _unnamed(index: Path) -> None:
    found = json.loads(index.read_text())
    del found["weight_map"]["decoder.conv_in.bias"]
    index.write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_remove, "missing m-00002-of-00003.safetensors"),
        (_twice, "decoder.conv_in.bias is in several shards"),
        (_unnamed, "not named by the index: decoder.conv_in.bias"),
        (lambda index: _first_shard(index, key="no.such", name="m-00001-of-00003.safetensors"), "names: no.such (m-"),
        (lambda index: index.write_text("{"), "no JSON"),
        (lambda index: index.write_text(""), "no JSON"),
        (lambda index: index.write_bytes(b"\xff\xfe{"), "no text in UTF-8"),
        (lambda index: index.write_text("[" * 100_000), "levels inside each other"),
        (lambda index: index.write_text('{"a":' * 900 + "1" + "}" * 900), "levels inside each other"),
        (lambda index: index.write_text("[1]"), "[1]: expected an index of shards"),
        (lambda index: index.write_text("{}"), "{}: expected an index of shards"),
        (lambda index: index.write_text('{"weight_map": {"a": "x.bin", "a": "y.bin"}}'), "named twice: a"),
        (lambda index: index.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"), "pointer of Git LFS"),
        (lambda index: index.write_text('{"weight_map": []}'), "weight_map=[]: expected an index"),
        (lambda index: index.write_text('{"weight_map": {}}'), "weight_map={}: expected an index"),
        (lambda index: index.write_text('{"weight_map": {"a": 1}}'), "the shard of 'a' is 1"),
        (lambda index: index.write_text('{"weight_map": {"a": "\\ud800"}}'), "missing"),
        (lambda index: index.write_text('{"weight_map": {"a": "%s"}}' % ("n" * 5000)), "missing"),
        (lambda index: index.write_text('{"weight_map": {"a": "m.safetensors.index.json"}}'), "text, which begins"),
    ],
)
def test_a_wrong_index_is_one_message(
    model: Autoencoder, tmp_path: Path, harm: Callable[[Path], Any], message: str
) -> None:
    index = sharded(tmp_path, export_state(model, format_named("ldm")).state, "m.safetensors.index.json")
    harm(index)
    for path in (index, tmp_path):
        with pytest.raises(UserError) as caught:
            smalti.load(path)
        assert message in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/x.safetensors", "a/../../x", "..", "", ".", "C:\\x", "..\\x", "\\\\host\\x", "a\0b"]
)
def test_a_shard_stays_in_the_folder_of_its_index(tmp_path: Path, name: str) -> None:
    save(tmp_path / "x.safetensors", {"a": torch.zeros(1)})
    index = tmp_path / "inside" / "m.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match="the index's own folder"):
        smalti.load(index)


def test_a_single_shard_points_to_its_index(model: Autoencoder, tmp_path: Path) -> None:
    index = sharded(tmp_path, export_state(model, format_named("ldm")).state, "m.safetensors.index.json")
    with pytest.raises(UserError, match=r"one of 3 shards: name the index, .*m\.safetensors\.index\.json"):
        smalti.load(tmp_path / "m-00001-of-00003.safetensors")
    index.unlink()
    with pytest.raises(UserError, match="is not beside it"):
        smalti.load(tmp_path / "m-00001-of-00003.safetensors")
    with pytest.raises(UserError, match="shards without their index"):
        import_checkpoint(tmp_path)


def test_a_shard_that_would_run_code_is_refused(model: Autoencoder, tmp_path: Path) -> None:
    index = sharded(tmp_path, export_state(model, format_named("ldm")).state, "pytorch_model.bin.index.json", ".bin")
    torch.save({"a": Path("x")}, tmp_path / "pytorch_model-00001-of-00003.bin")
    with pytest.raises(UserError, match="which could run code"):
        smalti.load(index)
