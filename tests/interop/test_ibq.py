"""IBQ's checkpoints: taming's keys, another meaning; Open-MAGVIT2's are known and refused."""

from pathlib import Path

import pytest
import torch

from smalti.bottlenecks.tokens import Branch, Tokens
from smalti.interop import ImportOptions
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state, import_checkpoint
from smalti.interop.converting import convert
from smalti.models.autoencoder import Autoencoder
from smalti.quantizers.ibq import IBQ
from smalti.quantizers.nearest import Nearest
from smalti.registry import UserError
from tests.interop.checkpoints import save, shaken, tiny_vq, zoo_like

YAML = "model: {class_path: src.IBQ.models.ibqgan.IBQ, init_args: {ddconfig: {z_channels: 4}, n_embed: 16}}\n"


def tiny_ibq() -> Autoencoder:
    branch = Branch(quantizer=IBQ(size=16, channels=4))
    return shaken(zoo_like(Tokens(in_channels=4, codebooks={"codebook": branch}), 4))


@pytest.fixture
def model() -> Autoencoder:
    return tiny_ibq()


@pytest.fixture
def file(model: Autoencoder, tmp_path: Path) -> Path:
    """A checkpoint as training leaves it, with averaged weights beside the raw ones."""
    raw = export_state(model, format_named("ibq")).state
    average = {f"model_ema.{key.replace('.', '')}": value * 0.5 for key, value in raw.items()}
    counters = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(5)}
    return save(tmp_path / "ibq.ckpt", {}, state_dict={**raw, **average, **counters})


def test_it_comes_in_under_its_name_with_the_same_tokens(model: Autoencoder, file: Path) -> None:
    found = import_checkpoint(file, "ibq", ImportOptions(weights="raw")).model
    assert isinstance(found.bottleneck.branches["codebook"].quantizer, IBQ)
    images = torch.rand(2, 3, 8, 12) * 2 - 1
    ours, theirs = model.encode(images), found.encode(images)
    assert torch.equal(ours.indices, theirs.indices)
    assert torch.equal(found.decode_indices(theirs.indices), model.decode(ours.latent))
    logits = torch.einsum(
        "bdhw,nd->bnhw", ours.codebooks["codebook"].z, model.bottleneck.branches["codebook"].quantizer.weight
    )
    assert torch.equal(ours.indices[:, 0], logits.argmax(dim=1))


def test_averaged_weights_are_taken_where_there_are_any(model: Autoencoder, file: Path) -> None:
    rows = import_checkpoint(file, "seed-voken").model.bottleneck.branches["codebook"].quantizer.weight
    assert torch.equal(rows, 0.5 * model.bottleneck.branches["codebook"].quantizer.weight)


def test_without_its_name_it_is_read_as_taming_unless_its_configuration_says_what_it_is(file: Path) -> None:
    assert isinstance(import_checkpoint(file).model.bottleneck.branches["codebook"].quantizer, Nearest)
    file.with_suffix(".yaml").write_text(YAML)
    with pytest.raises(UserError, match=r"ibqgan\.IBQ: its codes are compared by products: say --from ibq"):
        import_checkpoint(file)
    assert isinstance(import_checkpoint(file, "ibq").model.bottleneck.branches["codebook"].quantizer, IBQ)


def test_it_goes_out_and_comes_back_bit_equal(model: Autoencoder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "there.ckpt", target_format="ibq")
    convert(tmp_path / "there.ckpt", tmp_path / "back", source_format="ibq")
    back = Autoencoder.from_pretrained(tmp_path / "back")
    mine = model.state_dict()
    assert all(torch.equal(value, mine[key]) for key, value in back.state_dict().items() if "window" not in key)


@pytest.mark.parametrize(("format", "name"), [("taming", "there.ckpt"), ("diffusers", "there")])
def test_other_formats_do_not_take_its_codes(model: Autoencoder, tmp_path: Path, format: str, name: str) -> None:
    model.save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match="'ibq': expected 'nearest'"):
        convert(tmp_path / "ours", tmp_path / name, target_format=format)


def test_it_does_not_take_theirs(tmp_path: Path) -> None:
    tiny_vq().save_pretrained(tmp_path / "ours")
    with pytest.raises(UserError, match="'nearest': expected 'ibq'"):
        convert(tmp_path / "ours", tmp_path / "there.ckpt", target_format="ibq")


def test_open_magvit2_is_known_and_refused(tmp_path: Path) -> None:
    state = {
        "encoder.down.0.block.0.conv1.weight": torch.zeros(32, 32, 3, 3),
        "encoder.mid_block.0.conv1.weight": torch.zeros(32, 32, 3, 3),
        "decoder.adaptive.0.gamma.weight": torch.zeros(32, 18),
    }
    with pytest.raises(UserError, match="Open-MAGVIT2's, whose decoder normalises by its tokens"):
        import_checkpoint(save(tmp_path / "magvit.ckpt", state))
