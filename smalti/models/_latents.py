"""Scale and shift of latents, so that what a generator is trained on has mean 0 and deviation 1."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from smalti.nn.constants import constant


@dataclass(frozen=True, kw_only=True)
class LatentScale:
    """Per channel: scaled = (latent - shift) * scale; stored with a model and never applied by it.

    Latent-diffusion's and Stable Diffusion's ``scale_factor`` is one scale for all channels (arXiv:2112.10752, D.1).

    Args:
        shift: one number for each channel, or one for all.
        scale: as many.
    """

    shift: Sequence[float]
    scale: Sequence[float]

    def check(self, channels: int) -> None:
        """Refuses numbers that do not fit latents of ``channels`` channels.

        Raises:
            ValueError: if there are neither as many numbers as channels nor one, or a scale is not positive.
        """
        if len(self.shift) != len(self.scale) or len(self.scale) not in {1, channels}:
            raise ValueError(
                f"latents: {len(self.shift)} shifts and {len(self.scale)} scales: expected one of each for all "
                f"channels, or {channels}"
            )
        if not all(scale > 0.0 for scale in self.scale):
            raise ValueError(f"latents.scale={list(self.scale)}: expected positive numbers")

    def apply(self, latent: Tensor) -> Tensor:
        """(latent - shift) * scale, for latents with shape (B, C, h, w)."""
        return (latent - self._column(self.shift, latent)) * self._column(self.scale, latent)

    def invert(self, scaled: Tensor) -> Tensor:
        """scaled / scale + shift, for latents with shape (B, C, h, w)."""
        return scaled / self._column(self.scale, scaled) + self._column(self.shift, scaled)

    @staticmethod
    def _column(values: Sequence[float], latent: Tensor) -> Tensor:
        return constant(values, latent.dtype, latent.device).view(-1, 1, 1)
