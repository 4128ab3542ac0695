"""Extractors: frozen feature networks. A teacher is a role of one, not a class of its own."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor, nn

from smalti.extractors._images import Channels, chosen, seen
from smalti.registry import Part


class Extractor(Part, nn.Module):
    """Base of all extractors: frozen, always in evaluation mode, whatever ``train()`` says.

    ``input_range`` is the range of the images it takes; it normalises them itself. ``image_channels`` are the numbers
    of channels that it can look at, ``smallest_size`` is the least height and width. One that is ``exact`` computes in
    full precision whatever it is told, since its numbers are compared with published ones.

    Args:
        channels: which channels of the images it sees, and in which order, counted from 0; None: all of them.
    """

    kind = "extractor"
    package = "smalti.extractors"
    stand_ins: ClassVar[tuple[type, ...]] = (nn.Module,)
    input_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    image_channels: ClassVar[tuple[int, ...]] = (1, 3)
    smallest_size: int = 1
    exact: ClassVar[bool] = False
    _narrow: bool = False

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

    def __call__(self, *inputs: Any) -> Any:
        """What ``forward`` gives, in at least float32 where the network itself computes in bfloat16."""
        if not self._narrow:
            return super().__call__(*inputs)
        with self.precision(inputs[0].device):
            return tuple(feature.float() for feature in super().__call__(*inputs))

    def precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Within, the network computes as it was told to: in bfloat16, or as whoever calls it."""
        return torch.autocast(device.type, dtype=torch.bfloat16) if self._narrow else nullcontext()

    def networks(self) -> Iterator[nn.Module]:
        """All modules that it computes with, also those that it does not register."""
        for child in self.children():
            yield from child.networks() if isinstance(child, Extractor) else child.modules()

    def narrow(self) -> None:
        """From here on it computes in bfloat16, with weights that are kept so: half the memory, and no casts.

        Convolutions and linear layers only; normalisations, and what is done to the images before, stay as they are.
        """
        if self.exact:
            return
        self._narrow = True
        for module in self.networks():
            weight = getattr(module, "weight", None)
            if not isinstance(weight, Tensor) or weight.ndim < 2 or isinstance(module, nn.Embedding):
                continue
            for tensor in (weight, getattr(module, "bias", None)):
                if isinstance(tensor, Tensor) and tensor.is_floating_point():
                    tensor.data = tensor.data.to(torch.bfloat16)

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
