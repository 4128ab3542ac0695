"""Models made here compute the same inside diffusers; tiling and slicing work there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import smalti
from smalti.interop import ImportOptions
from smalti.interop.conversion import import_checkpoint
from smalti.interop.converting import convert
from smalti.models._latents import LatentScale
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError
from tests.conftest import GOLDEN
from tests.interop.checkpoints import save, shaken, tiny_kl, zoo_model
from tests.quantized import the_quantizer

diffusers = pytest.importorskip("diffusers")

NARROW = {"channels": 32, "blocks": 1}


@pytest.fixture(autouse=True)
def without_gradient() -> Iterator[None]:
    with torch.no_grad():
        yield


def there(model: Autoencoder, folder: Path) -> Any:
    model.save_pretrained(folder / "ours")
    convert(folder / "ours", folder / "theirs", target_format="diffusers")
    cls = json.loads((folder / "theirs" / "config.json").read_text())["_class_name"]
    return getattr(diffusers, cls).from_pretrained(folder / "theirs").eval()


def golden_options() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / "ldm/diffusers_kl_tiny_config.json").read_text())
    del found["_use_default_values"]  # what is named there would count as not given
    return found


@pytest.mark.parametrize("name", ["kl-f4", "kl-f8", "kl-f16", "kl-f32"])
def test_kl_models_of_the_zoo_compute_the_same_in_diffusers(name: str, tmp_path: Path) -> None:
    model = shaken(zoo_model(name, **NARROW))
    network = there(model, tmp_path)
    images = torch.rand(2, 3, 2 * model.factor, 2 * model.factor) * 2 - 1
    for dtype in (torch.float32, torch.float64):
        posterior = model.to(dtype).encode(images.to(dtype)).posterior
        theirs = network.to(dtype).encode(images.to(dtype)).latent_dist
        assert posterior is not None
        close(posterior.mean, theirs.mean)
        close(posterior.logvar, theirs.logvar)
        close(model.decode(posterior.mode()), network.decode(posterior.mode()).sample)


@pytest.mark.parametrize("name", ["vq-f4-noattn", "vq-f8-n256", "vq-f16"])
def test_vq_models_of_the_zoo_compute_the_same_in_diffusers(name: str, tmp_path: Path) -> None:
    model = shaken(zoo_model(name, **NARROW))
    the_quantizer(model.bottleneck).weight.normal_()  # fresh codes lie so close that rounding chooses among them
    network = there(model, tmp_path)
    images = torch.rand(2, 3, 2 * model.factor, 2 * model.factor) * 2 - 1
    for dtype in (torch.float32, torch.float64):
        output = model.to(dtype).encode(images.to(dtype))
        latents = network.to(dtype).encode(images.to(dtype)).latents
        close(output.codebooks["codebook"].z, latents)
        _, _, (_, _, indices) = network.quantize(latents)
        assert torch.equal(output.indices.flatten(), indices.flatten())
        close(model.decode(output.latent), network.decode(latents).sample)


def test_a_codebook_that_decodes_indices_alone_is_compared_too(tmp_path: Path) -> None:
    """As of aMUSEd: ``decode`` there takes indices, so that latents would be looked up as such."""
    options = {"block_out_channels": [32, 32], "down_block_types": ["DownEncoderBlock2D"] * 2, "latent_channels": 4}
    options |= {"up_block_types": ["UpDecoderBlock2D"] * 2, "lookup_from_codebook": True, "num_vq_embeddings": 8}
    network = diffusers.VQModel(**options, mid_block_add_attention=False).eval()
    network.save_pretrained(tmp_path / "vqvae")
    done = convert(tmp_path / "vqvae", tmp_path / "ours")
    assert done.checks[0].against == "in diffusers:"
    indices = torch.randint(8, (2, 1, 3, 4))
    theirs = network.decode(indices, force_not_quantize=True, shape=(2, 3, 4, 4)).sample
    close(smalti.load(tmp_path / "ours").decode_indices(indices), theirs)


def test_other_channels_out_than_in_are_refused_as_such(tmp_path: Path) -> None:
    network = diffusers.AutoencoderKL.from_config(golden_options() | {"in_channels": 4})
    network.save_pretrained(tmp_path / "vae")
    with pytest.raises(UserError, match=r"in_channels=4, out_channels=3: expected equal"):
        smalti.load(tmp_path / "vae")


def test_tiling_and_slicing_work_there(tmp_path: Path) -> None:
    model = tiny_kl()
    network = there(model, tmp_path)
    images = torch.randn(2, 3, 40, 32)
    whole = network(images).sample
    network.enable_slicing()
    close(network(images).sample, whole)
    close(model.decode(model.encode(images).latent), whole)
    network.tile_sample_min_size, network.tile_latent_min_size = 16, 8
    network.enable_tiling()
    assert network(images).sample.shape == images.shape


def test_a_folder_of_diffusers_comes_in_with_its_configuration(tmp_path: Path) -> None:
    options = golden_options()
    network = diffusers.AutoencoderKL.from_config(options | {"norm_num_groups": 16, "shift_factor": 0.25}).eval()
    network.save_pretrained(tmp_path / "vae")
    model = smalti.load(tmp_path / "vae")
    assert model.latents == LatentScale(shift=(0.25,), scale=(0.5,))
    images = torch.randn(1, 3, 16, 16)
    close(model.decode(model.encode(images).latent), network(images).sample)
    done = convert(tmp_path / "vae", tmp_path / "ours")
    assert done.checks[0].against == "in diffusers:"
    assert done.checks[0].largest < 1e-5
    convert(tmp_path / "ours", tmp_path / "back", target_format="diffusers")
    back = diffusers.AutoencoderKL.from_pretrained(tmp_path / "back")
    assert back.config.scaling_factor == 0.5
    assert back.config.shift_factor == 0.25
    assert back.config.norm_num_groups == 16


def test_autoencoders_without_quant_convolutions_as_of_stable_diffusion_3(tmp_path: Path) -> None:
    options = golden_options()
    bare = {"use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 1.0}
    bare |= {"latents_mean": [0.0, 0.1, 0.2, 0.3], "latents_std": [1.0, 2.0, 4.0, 8.0]}
    network = diffusers.AutoencoderKL.from_config(options | bare).eval()
    network.save_pretrained(tmp_path / "vae")
    convert(tmp_path / "vae", tmp_path / "ours")
    model = smalti.load(tmp_path / "ours")
    assert model.latents == LatentScale(shift=(0.0, 0.1, 0.2, 0.3), scale=(1.0, 0.5, 0.25, 0.125))
    images = torch.randn(1, 3, 16, 16)
    close(model.decode(model.encode(images).latent), network(images).sample)
    convert(tmp_path / "ours", tmp_path / "back", target_format="diffusers")
    assert diffusers.AutoencoderKL.from_pretrained(tmp_path / "back").config.latents_std == [1.0, 2.0, 4.0, 8.0]


def test_attention_names_of_old_diffusers_are_understood(tmp_path: Path) -> None:
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    network = there(tiny_kl(), tmp_path)
    state = {}
    for key, value in network.state_dict().items():
        for name, former in old.items():
            key = key.replace(f".{name}.", f".{former}.")  # noqa: PLW2901
        state[key] = value
    model = smalti.load(save(tmp_path / "diffusion_pytorch_model.bin", state))
    images = torch.randn(1, 3, 16, 16)
    close(model.decode(model.encode(images).latent), network(images).sample)
    done = convert(tmp_path / "diffusion_pytorch_model.bin", tmp_path / "again")
    assert done.source.startswith("diffusers")


def test_a_checkpoint_of_compvis_goes_to_diffusers_and_back_bit_equal(tmp_path: Path) -> None:
    source = GOLDEN / "ldm/kl_tiny_state.safetensors"
    convert(source, tmp_path / "there", target_format="diffusers")
    convert(tmp_path / "there", tmp_path / "back.ckpt", target_format="latent-diffusion")
    before = import_checkpoint(source).checkpoint.state
    after = import_checkpoint(tmp_path / "back.ckpt").checkpoint.state
    assert after.keys() == {key for key in before if not key.startswith("loss.")}
    assert all(torch.equal(value, before[key]) for key, value in after.items())


def test_published_scales(tmp_path: Path) -> None:
    model = zoo_model("kl-f8", **NARROW)
    model.save_pretrained(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "sd.ckpt", target_format="latent-diffusion")
    assert smalti.load(tmp_path / "sd.ckpt").latents == LatentScale(shift=(0.0,), scale=(0.18215,))
    asked = import_checkpoint(tmp_path / "sd.ckpt", options=ImportOptions(scaling_factor=0.13025)).model
    assert asked.latents == LatentScale(shift=(0.0,), scale=(0.13025,))
    assert smalti.load(GOLDEN / "ldm/kl_tiny_state.safetensors").latents is None


def close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    """1e-5 of the largest value in float32, whose rounding alone is that much in both; 1e-12 in float64."""
    atol = 1e-12 if actual.dtype == torch.float64 else 1e-5 * max(1.0, float(expected.abs().max()))
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)
