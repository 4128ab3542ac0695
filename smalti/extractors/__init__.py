"""Extractors: frozen feature networks. A teacher is a role of one, not a class of its own."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol, Self, runtime_checkable

from torch import Tensor, nn

from smalti.extractors._images import Channels, chosen, seen
from smalti.registry import Part


class Extractor(Part, nn.Module):
    """Base of all extractors: frozen, always in evaluation mode, whatever ``train()`` says.

    ``input_range`` is the range of the images it takes; it normalises them itself. ``image_channels`` are the numbers
    of channels that it can look at, ``smallest_size`` is the least height and width.

    Args:
        channels: which channels of the images it sees, and in which order, counted from 0; None: all of them.
    """

    kind = "extractor"
    package = "smalti.extractors"
    stand_ins: ClassVar[tuple[type, ...]] = (nn.Module,)
    input_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    image_channels: ClassVar[tuple[int, ...]] = (1, 3)
    smallest_size: int = 1

    def __init__(self, channels: Channels | None = None) -> None:
        super().__init__()
        self.channels = chosen(channels)
        if self.channels is not None:
            self.register_forward_pre_hook(_choose)

    def objection(self, shape: Sequence[int], channels: Sequence[int] | None = None) -> str | None:
        """What it has against images of ``shape`` (C, H, W), known without looking at one; None if nothing.

        Args:
            shape: of the images.
            channels: those that are chosen before they come here; None: all.
        """
        count, height, width = shape
        for choice in (channels, self.channels):
            if choice is not None:
                if max(choice) >= count:
                    return f"channels={list(choice)}: the images have {count} channels, 0 to {count - 1}"
                count = len(choice)
        if count not in self.image_channels:
            allowed = " or ".join(map(str, self.image_channels))
            return f"it looks at {allowed} channels, not at {count}: choose some with channels, as channels: [0, 1, 2]"
        if min(height, width) < self.smallest_size:
            return f"images of {height} x {width} pixels: it needs at least {self.smallest_size} x {self.smallest_size}"
        return None

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


def _choose(extractor: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    images, *rest = inputs
    return (seen(images, extractor.channels), *rest)  # type: ignore[arg-type]
