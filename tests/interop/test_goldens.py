"""Imported state dicts of the originals give the originals' numbers."""

from pathlib import Path
from typing import Any

import pytest
import torch

import smalti
from smalti.interop.conversion import import_checkpoint
from tests.conftest import GOLDEN
from tests.interop.checkpoints import save


def close(actual: torch.Tensor, expected: torch.Tensor, atol: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=1e-9)


def tokenizer(golden: Any, name: str, folder: Path) -> tuple[Any, dict[str, torch.Tensor]]:
    tensors = golden(f"fqgan/tokenizer_{name}.safetensors")
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    return import_checkpoint(save(folder / "vq.pt", {}, model=state)), tensors


def test_latent_diffusion_kl() -> None:
    found = import_checkpoint(GOLDEN / "ldm/kl_tiny_state.safetensors")
    assert {reason.split(",")[0] for reason in found.dropped} == {"LPIPS", "scale of the loss"}
    assert found.checkpoint.discriminator


@torch.no_grad()
def test_latent_diffusion_kl_in_float64(golden: Any) -> None:
    model = smalti.load(GOLDEN / "ldm/kl_tiny_state.safetensors").double()
    io = golden("ldm/kl_tiny_io.safetensors")
    posterior = model.encode(io["image"]).posterior
    assert posterior is not None
    for name, value in (("mean", posterior.mean), ("logvar", posterior.logvar), ("mode", posterior.mode())):
        close(value, io[name])
    close(posterior.sample(io["noise"]), io["sample"])
    close(model.decode(io["mode"]), io["recon_mode"])
    close(model.decode(io["sample"]), io["recon_sample"])


@torch.no_grad()
def test_taming_vq_in_float64(golden: Any) -> None:
    model = smalti.load(GOLDEN / "ldm/vq_tiny_state.safetensors", format="taming").double()
    io = golden("ldm/vq_tiny_io.safetensors")
    output = model.encode(io["image"])
    assert torch.equal(output.codebooks["codebook"].indices, io["indices"])
    close(output.codebooks["codebook"].z, io["prequant"])
    close(output.latent, io["quant"])
    close(model.decode(output.latent), io["recon"])


@torch.no_grad()
def test_diffusers_kl(golden: Any) -> None:
    model = smalti.load(GOLDEN / "ldm/diffusers_kl_tiny_state.safetensors")
    io = golden("ldm/diffusers_kl_tiny_io.safetensors")
    images = io["image"]
    posterior = model.double().encode(images).posterior
    assert posterior is not None
    close(torch.cat([posterior.mean, posterior.logvar], dim=1), io["moments"])
    close(posterior.mode(), io["mode"])
    close(posterior.kl(), io["kl"])
    close(model.decode(posterior.mode()), io["recon_mode"])


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "order"), [("dual_ds16", ["sem", "vis"]), ("triple_ds8", ["vis", "sem_mid", "sem_high"])]
)
def test_fqgan(golden: Any, tmp_path: Path, name: str, order: list[str]) -> None:
    found, io = tokenizer(golden, name, tmp_path)
    model = found.model
    names = {"vis": "visual", "sem": "semantic", "sem_mid": "mid", "sem_high": "high"}
    assert list(model.codebook_sizes) == [ours for ours in names.values() if ours in model.codebook_sizes]
    output = model.encode(io["io.x"])
    for theirs in order:
        record = output.codebooks[names[theirs]]
        assert torch.equal(record.indices.flatten(), io[f"io.eval.encode.{theirs}.idx"].flatten())
        close(record.latent, io[f"io.eval.encode.{theirs}.quant"], 2e-5)
    close(model.decode(output.latent), io["io.eval.recon"], 5e-5)
    close(model.decode_indices(output.indices), io["io.eval.decode_code"], 2e-5)


@torch.no_grad()
def test_llamagen(golden: Any, tmp_path: Path) -> None:
    found, io = tokenizer(golden, "llamagen_ds8", tmp_path)
    output = found.model.encode(io["io.x"])
    assert torch.equal(output.indices.flatten(), io["io.eval.idx"])
    close(found.model.decode_indices(output.indices), io["io.eval.decode_code"], 2e-5)
    assert torch.equal(found.model.encode(io["io.rect.x"]).indices.flatten(), io["io.rect.idx"])


@torch.no_grad()
def test_feature_heads_of_fqgan(golden: Any, tmp_path: Path) -> None:
    found, io = tokenizer(golden, "triple_ds8", tmp_path)
    output = found.model.training_forward({"image": io["io.x"]})
    assert set(output.heads) == {"mid", "high"}
    heads = {key for key in io if key.startswith("io.train.feat")}
    assert heads
    for name in ("mid", "high"):
        expected = io[next(key for key in heads if name in key)]
        latent = output.bottleneck.codebooks[name].latent
        close(found.model.heads[name].tokens(latent), expected, 2e-5)
