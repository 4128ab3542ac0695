"""MoVQ, diffusers' VQModel whose decoder is normalised by the codes: keys, numbers, gradients, refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import smalti
from smalti.bottlenecks.gaussian import Gaussian
from smalti.config import build
from smalti.interop import ImportOptions
from smalti.interop._backbone import layout_of_ours
from smalti.interop._containers import Checkpoint
from smalti.interop._recognise import format_named, recognise
from smalti.interop.conversion import config_from, export_state
from smalti.interop.converting import convert
from smalti.losses.codebook import codebook_loss
from smalti.losses.commitment import commitment_loss
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError
from tests.interop.checkpoints import manifests, shaken
from tests.quantized import one_codebook


def tiny(bottleneck: Any = None, z_channels: int = 4, **options: Any) -> Autoencoder:
    """Two levels of 32 channels, 16 codes of 4; options are of the decoder."""
    bottleneck = bottleneck or one_codebook(4, 16, 4, init="normal")
    shared: dict[str, Any] = {"channels": 32, "multipliers": [1, 2], "blocks": 1, "attention_levels": [1]}
    encoder = ConvEncoder(**shared, out_channels=bottleneck.in_channels)
    decoder = ConvDecoder(**shared, latent_channels=4, z_channels=z_channels, norm="spatial", **options)
    return shaken(Autoencoder(encoder, bottleneck, decoder))


def test_keys_and_shapes_are_the_published_ones() -> None:
    expected = {key: shape for key, (shape, _) in manifests()["diffusers_vqmodel_movq_spatial"].items()}
    with on_meta_device():
        state = {key: torch.empty(shape) for key, shape in expected.items()}
        kind = recognise(state.keys(), "auto", Path("movq"))
        table = kind.table(kind.layout(state.keys()))
        model = build(config_from(Checkpoint(Path("movq"), state), kind, table, ImportOptions()), Autoencoder)
        exported = export_state(model, kind).state
    assert {key: list(value.shape) for key, value in exported.items()} == expected


def test_it_computes_and_learns_the_same_in_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    tiny().save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", target_format="diffusers")
    theirs = diffusers.VQModel.from_pretrained(tmp_path / "theirs").double().train()
    assert theirs.config.norm_type == "spatial"
    done = convert(tmp_path / "theirs", tmp_path / "again")
    assert done.checks[0].against == "in diffusers:"
    ours = smalti.load(tmp_path / "again").double().train()
    images = torch.rand(2, 3, 12, 8, dtype=torch.float64) * 2 - 1
    output = ours.training_forward({"image": images})
    record = output.bottleneck.codebooks["codebook"]
    loss = (output.reconstruction - images).square().mean() + commitment_loss(record) + 0.25 * codebook_loss(record)
    quantized, commitment, _ = theirs.quantize(theirs.quant_conv(theirs.encoder(images)))
    reconstruction = theirs.decoder(theirs.post_quant_conv(quantized), quantized)
    torch.testing.assert_close(output.reconstruction, reconstruction, rtol=0, atol=1e-12)
    loss.backward()
    ((reconstruction - images).square().mean() + commitment).backward()
    table = format_named("diffusers").table(layout_of_ours(ours.state_dict()))
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        found = table.theirs(name)
        assert found is not None
        gradient = gradients[found[0]]
        assert gradient is not None
        torch.testing.assert_close(parameter.grad, found[1].take(gradient), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "format", "reason"),
    [
        (tiny, "latent-diffusion", r"only diffusers' VQModel has it"),
        (tiny, "llamagen", r"decoder: norm='spatial', expected 'group'"),
        (lambda: tiny(Gaussian(in_channels=8, latent_channels=4)), "diffusers", r"behind a KL bottleneck"),
        (lambda: tiny(z_channels=8), "diffusers", r"codes of 4 channels and z of 8: expected equal"),
        (lambda: tiny(groups=16), "diffusers", r"norm='spatial' with 16 groups: expected 32"),
    ],
)
def test_what_has_no_place_for_it_says_so(make: Callable[[], Autoencoder], format: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        export_state(make(), format_named(format))


def test_movq_in_the_layout_of_taming_is_refused_and_a_wrong_configuration_too(tmp_path: Path) -> None:
    keys = ["encoder.down.0.block.0.norm1.weight", "decoder.mid.block_1.norm1.conv_y.weight"]
    with pytest.raises(UserError, match=r"MoVQ.*layout of diffusers"):
        recognise(keys, "auto", Path("movq_final.ckpt"))
    tiny().save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", target_format="diffusers")
    config = tmp_path / "theirs" / "config.json"
    config.write_text(config.read_text().replace('"spatial"', '"group"'))
    with pytest.raises(UserError, match=r"norm_type='group', the tensors say 'spatial'"):
        smalti.load(tmp_path / "theirs")
