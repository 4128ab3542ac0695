"""Augmentations around a discriminator: it never sees an image as it is, so it cannot learn the data by heart.

The same differentiable transformation acts on every image that is judged, real and made, whoever is trained. The
discriminator applies it in training mode only.
"""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from smalti.nn.precision import at_least_float32, full_precision
from smalti.outputs import DiscriminatorOutput
from smalti.registry import Part


class Draws:
    """Random numbers for one batch.

    Args:
        batch: number of samples B.
        like: a tensor on the device and in the dtype wanted.
        seed: where the numbers come from; None for torch's global generator.
    """

    def __init__(self, batch: int, like: Tensor, seed: int | None) -> None:
        self._like = like.new_empty(batch)
        self._generator = None if seed is None else torch.Generator(like.device).manual_seed(seed)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Numbers in [low, high), with shape (B,)."""
        return torch.empty_like(self._like).uniform_(low, high, generator=self._generator)

    def normal(self, std: float = 1.0) -> Tensor:
        """Normal numbers, with shape (B,)."""
        return torch.empty_like(self._like).normal_(0.0, std, generator=self._generator)

    def integers(self, low: int, high: int) -> Tensor:
        """Whole numbers from ``low`` to ``high``, both included, int64 with shape (B,)."""
        return torch.empty_like(self._like, dtype=torch.int64).random_(low, high + 1, generator=self._generator)


class Augmentation(Part, nn.Module):
    """Base of all augmentations around a discriminator.

    A subclass says what it does to ``color``, of images only, and to ``place``, of an image and its condition alike.
    """

    kind = "augmentation"
    package = "smalti.discriminators"
    stand_ins = (nn.Module,)
    forbids_graphs: ClassVar[str] = "what it does to a batch is seeded on the host"
    _seed: int | None = None

    @abstractmethod
    def color(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (B, C, H, W) in [-1, 1] in other colours."""

    @abstractmethod
    def place(self, maps: Tensor, draws: Draws) -> Tensor:
        """Images or conditions (B, C, H, W) with their pixels moved or hidden."""

    def forward(self, images: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Transforms images (B, C, H, W) in [-1, 1] and, by the same draw, the condition (B, K, H, W) beside them."""
        with full_precision():
            images = at_least_float32(images)
            draws = Draws(images.shape[0], images, self._seed)
            images = self.color(images, draws)
            if condition is None:
                return self.place(images, draws), None
            both = self.place(torch.cat([images, condition.to(images.dtype)], dim=1), draws)
            return both[:, : images.shape[1]], both[:, images.shape[1] :]

    @contextmanager
    def equal_draws(self) -> Iterator[None]:
        """Within it each call draws the same: image i of every batch of one size is transformed alike.

        A phase enters it for a pass, so that a real image and its reconstruction, or both judgements of a penalty that
        compares two, see one transformation.
        """
        before, self._seed = self._seed, int(torch.randint(2**62, ()))
        try:
            yield
        finally:
            self._seed = before

    def measures(self) -> Mapping[str, Tensor]:
        """Names -> detached scalars of its own that belong in the log; by default none."""
        return {}

    def update(self, records: Sequence[DiscriminatorOutput]) -> None:
        """Sees the logits of real images after each step of the discriminator; state changes only here."""


def when(chosen: Tensor, changed: Tensor, neutral: Tensor | float) -> Tensor:
    """``changed`` where ``chosen`` (both (B, ...)), elsewhere ``neutral``."""
    return torch.where(chosen, changed, neutral)


def cutout(maps: Tensor, row: Tensor, column: Tensor, height: int, width: int) -> Tensor:
    """Maps (B, C, H, W) with a window set to 0.

    Args:
        maps: with shape (B, C, H, W).
        row: centre of the window, with shape (B,).
        column: likewise.
        height: of the window, in pixels.
        width: likewise.

    >>> cutout(torch.ones(1, 1, 1, 4), torch.tensor([0]), torch.tensor([1]), 1, 2)
    tensor([[[[0., 0., 1., 1.]]]])
    """
    i = torch.arange(maps.shape[-2], device=maps.device) - (row[:, None] - height // 2)
    j = torch.arange(maps.shape[-1], device=maps.device) - (column[:, None] - width // 2)
    hidden = ((i >= 0) & (i < height))[:, None, :, None] & ((j >= 0) & (j < width))[:, None, None, :]
    return maps * ~hidden
