"""Extractors: frozen feature networks. A teacher is a role of one, not a class of its own."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from smalti.registry import Part


class Extractor(Part, nn.Module):
    """Base of all extractors: frozen, always in evaluation mode, whatever ``train()`` says.

    ``input_range`` is the range of the images it takes; it normalises them itself.
    """

    kind = "extractor"
    package = "smalti.extractors"
    stand_ins: ClassVar[tuple[type, ...]] = (nn.Module,)
    input_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of ``images`` with shape (B, 3, H, W), shallow to deep, each with shape (B, C, h, w) or (B, C)."""

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: the originals' LPIPS had its dropout switched on by a parent's ``train()``."""
        return super().train(False)


@runtime_checkable
class EmbedsTexts(Protocol):
    """What an extractor of images and texts from elsewhere must have."""

    def forward(self, images: Tensor, /) -> tuple[Tensor, ...]:
        """The one feature (B, D) of ``images`` with shape (B, 3, H, W)."""

    def embed_text(self, texts: Sequence[str], /) -> Tensor:
        """Unit vectors with shape (M, D) for M texts."""


class TextImageExtractor(Extractor):
    """Base of the extractors that embed texts in the same space as images: their one feature is (B, D)."""

    stand_ins = (EmbedsTexts,)

    @abstractmethod
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors with shape (M, D) for M texts, without autograd."""
