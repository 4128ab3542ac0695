"""What a protocol does to images before anything is measured."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from smalti.evaluation.protocol import Quantize
from smalti.metrics import Observation


def quantized(images: Tensor, how: Quantize) -> Tensor:
    """Images in [-1, 1] of any shape, as they are, or on the grid of 8 bits; in the same range.

    ``round`` takes the nearest of 256 values; ``truncate128`` is ADM's: 127.5 x + 128, limited to 0 to 255, cut off.

    Example:
        >>> import torch
        >>> x = torch.tensor([-1.0, 0.0, 0.005, 1.0])
        >>> [((quantized(x, how) + 1) * 127.5).round().tolist() for how in ("round", "truncate128")]
        [[0.0, 128.0, 128.0, 255.0], [0.0, 128.0, 128.0, 255.0]]
    """
    if how == "none":
        return images
    if how == "round":
        return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    return (images * 127.5 + 128).clamp(0, 255).floor() / 127.5 - 1


def under(observation: Observation, how: Quantize) -> Observation:
    """The observation with both images (B, C, H, W) as the protocol wants them."""
    if how == "none":
        return observation
    return replace(
        observation,
        target=quantized(observation.target, how),
        reconstruction=quantized(observation.reconstruction, how),
        ablations={name: _after(make, how) for name, make in observation.ablations.items()},
    )


def _after(make: Callable[[], Tensor], how: Quantize) -> Callable[[], Tensor]:
    return lambda: quantized(make(), how)
