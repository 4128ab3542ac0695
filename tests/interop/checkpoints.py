"""What the tests of interop share: manifests, state dicts of any layout without their memory, tiny models."""

import gzip
import json
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks.gaussian import Gaussian
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from tests.quantized import one_codebook

MANIFESTS = Path(__file__).parent / "manifests" / "manifests.json.gz"
LARGEST = 30_000_000

# The zoo of latent-diffusion and taming (spec/latent_diffusion.md 3.1), ch 128 and 2 blocks:
# name -> (ch_mult, levels with attention, z, K, embed, attention in the middle)
ZOO: dict[str, tuple[list[int], list[int], int, int | None, int, bool]] = {
    "kl-f4": ([1, 2, 4], [], 3, None, 3, True),
    "kl-f8": ([1, 2, 4, 4], [], 4, None, 4, True),
    "kl-f16": ([1, 1, 2, 2, 4], [4], 16, None, 16, True),
    "kl-f32": ([1, 1, 2, 2, 4, 4], [4, 5], 64, None, 64, True),
    "vq-f4": ([1, 2, 4], [], 3, 8192, 3, True),
    "vq-f4-noattn": ([1, 2, 4], [], 3, 8192, 3, False),
    "vq-f8": ([1, 2, 2, 4], [3], 4, 16384, 4, True),
    "vq-f8-n256": ([1, 2, 2, 4], [3], 4, 256, 4, True),
    "vq-f16": ([1, 1, 2, 2, 4], [4], 8, 16384, 8, True),
    "taming-f16-1024": ([1, 1, 2, 2, 4], [4], 256, 1024, 256, True),
    "taming-f16-16384": ([1, 1, 2, 2, 4], [4], 256, 16384, 256, True),
}


@cache
def manifests() -> dict[str, dict[str, Any]]:
    """Name -> {key: [shape, dtype]}, of the originals at their real sizes."""
    found: dict[str, dict[str, Any]] = json.loads(gzip.decompress(MANIFESTS.read_bytes()))
    return found


@cache
def _noise() -> Tensor:
    return torch.randn(LARGEST, generator=torch.Generator().manual_seed(0))


def filled(manifest: Mapping[str, Any]) -> dict[str, Tensor]:
    """A random state dict: every tensor is another window onto one buffer, so that real sizes cost nothing."""
    state = {}
    for number, (key, (shape, dtype)) in enumerate(manifest.items()):
        start = (number * 7919) % 100_003
        window = _noise()[start : start + math.prod(shape)].view(shape)
        state[key] = window if dtype == "float32" else torch.ones(shape, dtype=getattr(torch, dtype))
    return state


def autoencoder(
    bottleneck: Bottleneck, *, multipliers: list[int], attention: list[int], z_channels: int, **shared: Any
) -> Autoencoder:
    """A symmetric convolutional autoencoder."""
    options = {"multipliers": multipliers, "attention_levels": attention, **shared}
    encoder = ConvEncoder(**options, out_channels=bottleneck.in_channels)
    decoder = ConvDecoder(**options, latent_channels=bottleneck.latent_channels, z_channels=z_channels)
    return Autoencoder(encoder, bottleneck, decoder).eval()


def zoo_model(name: str, **shared: Any) -> Autoencoder:
    """One of the zoo; ``shared`` makes it narrow, as ``channels=32, blocks=1``."""
    multipliers, attention, z, codes, embed, middle = ZOO[name]
    gaussian = Gaussian(in_channels=2 * z, latent_channels=embed)
    bottleneck: Bottleneck = gaussian if codes is None else one_codebook(z, codes, embed)
    return autoencoder(
        bottleneck, multipliers=multipliers, attention=attention, z_channels=z, middle_attention=middle, **shared
    )


def tiny_kl() -> Autoencoder:
    """Two levels of 32 channels, 1 block, 4 latent channels; its norms and codes are random too."""
    return shaken(zoo_like(Gaussian(in_channels=8, latent_channels=4), 4))


def tiny_vq() -> Autoencoder:
    """Two levels of 32 channels, 1 block, 16 codes of 4."""
    return shaken(zoo_like(one_codebook(4, 16, 4, init="normal"), 4))


def zoo_like(bottleneck: Bottleneck, z_channels: int) -> Autoencoder:
    return autoencoder(bottleneck, multipliers=[1, 2], attention=[1], z_channels=z_channels, channels=32, blocks=1)


def shaken(model: Autoencoder) -> Autoencoder:
    """Moves what starts at 0 or 1, so that a bias or norm in the wrong place is seen."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def save(path: Path, state: Mapping[str, Tensor], **containers: Any) -> Path:
    """A safetensors file, or a pickle in a container (``state_dict=...`` takes the place of the bare state)."""
    if path.suffix == ".safetensors":
        save_file({key: value.clone().contiguous() for key, value in state.items()}, path)
    else:
        torch.save(containers or dict(state), path)
    return path
