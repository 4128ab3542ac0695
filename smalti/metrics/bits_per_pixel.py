"""Bits per pixel: what an image takes to store, whatever stores it."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric
from smalti.outputs import BottleneckOutput


class BitsPerPixel(PerImageMetric):
    """Mean over images of bits / (H W) for images (B, C, H, W) (the rate of rate-distortion; Shannon et al., 1948).

    Bits are those of the tokens, log2 K each, of the numbers of a continuous latent by their type, or of a codec's
    files; nothing is entropy-coded. Of images that were made elsewhere it is not a number.
    """

    higher_is_better = False
    names = ("bits_per_pixel",)

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``bits_per_pixel`` -> bits by pixels of each image, with shape (B,)."""
        bits = (
            observation.bits
            if observation.bits is not None
            else stored_bits(observation.bottleneck, observation.codebook_sizes)
        )
        height, width = observation.target.shape[-2:]
        return {"bits_per_pixel": bits.double() / (height * width)}


def stored_bits(bottleneck: BottleneckOutput, codebook_sizes: Mapping[str, int]) -> Tensor:
    """What each image takes to store, with shape (B,): tokens times log2 K, or values times the bits of their type."""
    if bottleneck.indices is None:
        latent = bottleneck.latent
        each = float(latent[0].numel() * torch.finfo(latent.dtype).bits) if len(latent) else 0.0
        return torch.full((len(latent),), each, dtype=torch.float64, device=latent.device)
    indices = bottleneck.indices
    positions = math.prod(indices.shape[2:])
    each = positions * sum(math.log2(size) for size in codebook_sizes.values())
    return torch.full((len(indices),), each, dtype=torch.float64, device=indices.device)
