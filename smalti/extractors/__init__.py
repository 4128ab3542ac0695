"""Extractors: frozen feature networks. A teacher is a role of one, not a class of its own."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Self

from torch import Tensor, nn

from smalti.registry import Part


class Extractor(Part, nn.Module):
    """Base of all extractors: frozen, always in evaluation mode, whatever ``train()`` says.

    ``input_range`` is the range of the images it takes; it normalises them itself.
    """

    kind = "extractor"
    package = "smalti.extractors"
    input_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    @abstractmethod
    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of ``images`` with shape (B, 3, H, W), shallow to deep, each with shape (B, C, h, w) or (B, C)."""

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: the originals' LPIPS had its dropout switched on by a parent's ``train()``."""
        return super().train(False)


class TextImageExtractor(Extractor):
    """Base of the extractors that embed texts in the same space as images: their one feature is (B, D)."""

    @abstractmethod
    def embed_text(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors with shape (M, D) for M texts, without autograd."""
