"""Large images and batches in pieces, when a model is used: tiles of an image, images of a batch."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor

from smalti.nn.tiling import tiled
from smalti.registry import UserError


class Pieces:
    """How encoder and decoder are applied in evaluation; a switch of the moment, saved nowhere.

    Args:
        factor: pixels per latent position, along each side.
    """

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.tile: tuple[int, int] | None = None  # side and overlap, in latent positions
        self.slicing = False

    def set_tiles(self, size: int, overlap: float) -> None:
        """Tiles of ``size`` pixels, of whose side neighbours share the fraction ``overlap``.

        Raises:
            UserError: if ``size`` is no multiple of the factor, or ``overlap`` not in [0, 1).
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < self.factor or size % self.factor:
            raise UserError(f"tile_size={size!r}: expected a multiple of the factor {self.factor}")
        if not 0.0 <= overlap < 1.0:
            raise UserError(f"overlap={overlap!r}: expected a fraction of a tile, at least 0 and below 1")
        positions = size // self.factor
        self.tile = positions, min(round(overlap * positions), positions - 1)

    def encode(self, encoder: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Features (B, C', h, w) of images (B, C, h * factor, w * factor)."""
        return self._apply(encoder, images, Fraction(1, self.factor))

    def decode(self, decoder: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
        """Images (B, C, h * factor, w * factor) of latents (B, C', h, w)."""
        return self._apply(decoder, latent, Fraction(self.factor))

    def _apply(self, work: Callable[[Tensor], Tensor], value: Tensor, scale: Fraction) -> Tensor:
        if self.slicing and value.shape[0] > 1:
            return torch.cat([self._tiled(work, one, scale) for one in value.chunk(value.shape[0])])
        return self._tiled(work, value, scale)

    def _tiled(self, work: Callable[[Tensor], Tensor], value: Tensor, scale: Fraction) -> Tensor:
        return work(value) if self.tile is None else tiled(work, value, scale, *self.tile)
