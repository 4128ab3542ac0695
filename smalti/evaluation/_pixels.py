"""What a protocol does to images before anything is measured."""

from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from smalti.metrics import Observation
from smalti.metrics._quantized import Quantize, quantized


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
