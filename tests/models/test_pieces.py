"""Tiling and slicing of a model: tokens and latents stay consistent, training is left alone, nothing is saved."""

from pathlib import Path

import pytest
import torch

import smalti
from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks.gaussian import Gaussian
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.registry import UserError
from tests.quantized import one_codebook

CALLS = ("encoder", "decoder")


def model(norm: str = "group", kind: str = "tokens") -> Autoencoder:
    torch.manual_seed(0)
    sizes = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "groups": 4, "middle_attention": False, "norm": norm}
    bottleneck: Bottleneck = one_codebook(6, 8, 3) if kind == "tokens" else Gaussian(in_channels=6, latent_channels=3)
    return Autoencoder(
        ConvEncoder(**sizes, out_channels=6), bottleneck, ConvDecoder(**sizes, latent_channels=3, z_channels=6)
    ).eval()


def images(height: int = 36, width: int = 52, batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def sizes_of_calls(made: Autoencoder) -> list[tuple[int, ...]]:
    """The shapes that the encoder and the decoder are given from now on."""
    seen: list[tuple[int, ...]] = []
    for name in CALLS:
        getattr(made, name).register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    return seen


@torch.no_grad()
@pytest.mark.parametrize("norm", ["group", "none"])
def test_tokens_decode_to_the_reconstruction_in_tiles_too(norm: str) -> None:
    made = model(norm)
    made.enable_tiling(16, 0.25)
    code = made.encode(images())
    expected = made.decode(code.latent)
    assert code.indices is not None
    assert torch.equal(made.decode_indices(code.indices), expected)
    assert torch.equal(made.reconstruct(images()), expected)
    assert torch.equal(made(images()).reconstruction, expected)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["tokens", "gaussian"])
def test_no_network_sees_more_than_a_tile(kind: str) -> None:
    made = model(kind=kind)
    seen = sizes_of_calls(made)
    made.enable_tiling(16, 0.25)
    assert made.reconstruct(images(35, 51)).shape == (2, 3, 35, 51)
    assert {shape[-2:] for shape in seen} == {(16, 16), (8, 8)}
    seen.clear()
    made.enable_slicing()
    made.reconstruct(images(8, 8))
    assert [shape[0] for shape in seen] == [1, 1, 1, 1]


@torch.no_grad()
def test_what_fits_a_tile_and_slices_of_a_batch_are_as_before() -> None:
    made, x = model().double(), images(16, 12, batch=3).double()
    whole = made.reconstruct(x)
    made.enable_tiling(16)
    assert torch.equal(made.reconstruct(x), whole)
    made.disable_tiling()
    made.enable_slicing()
    torch.testing.assert_close(made.reconstruct(x), whole, rtol=1e-10, atol=1e-10)
    made.disable_slicing()
    assert torch.equal(made.reconstruct(x), whole)


@torch.no_grad()
def test_a_network_of_convolutions_has_no_seams_and_normalisation_moves_what_it_sees() -> None:
    x = images(32, 64, batch=1)
    local, normalised = model("none", "gaussian"), model("group", "gaussian")
    gaps = []
    for made in (local, normalised):
        whole = made.reconstruct(x)
        made.enable_tiling(32, 0.75)
        gaps.append(float((made.reconstruct(x) - whole).abs().mean() / whole.abs().mean()))
    assert gaps[0] < gaps[1] < 1.0
    assert gaps[0] < 0.02


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_training_is_never_in_pieces(mode: str) -> None:
    made = model().train(mode == "train")
    seen = sizes_of_calls(made)
    made.enable_tiling(8)
    made.enable_slicing()
    made.training_forward({"image": images(16, 16)})
    assert ((2, 3, 16, 16) in seen) is (mode == "train")


@pytest.mark.parametrize("size", [0, -16, 15, 1, 2.0, True])
def test_a_tile_that_no_latent_has_is_refused(size: int) -> None:
    with pytest.raises(UserError, match="expected a multiple of the factor 2"):
        model().enable_tiling(size)


@pytest.mark.parametrize("overlap", [-0.1, 1.0, float("nan")])
def test_an_overlap_that_is_none_is_refused(overlap: float) -> None:
    with pytest.raises(UserError, match=r"overlap=.*at least 0 and below 1"):
        model().enable_tiling(16, overlap)


def test_it_is_a_switch_of_the_moment(tmp_path: Path) -> None:
    made = model()
    made.enable_tiling(16)
    made.enable_slicing()
    made.save_pretrained(tmp_path / "model")
    seen = sizes_of_calls(again := smalti.load(tmp_path / "model"))
    again.reconstruct(images())
    assert seen[0] == (2, 3, 36, 52)
