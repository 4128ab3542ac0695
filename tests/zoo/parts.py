"""What ails the sick recipes that an option alone cannot make sick: sources, losses and teachers with a fault."""

from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from smalti.data import ImageSource
from smalti.data.digits import Digits
from smalti.data.photos import Photos
from smalti.extractors import Extractor

Part = Literal["train", "held_out", "all"]
Fault = Literal["blank", "equal", "one_label", "few", "slow"]


class Lifted(Digits):
    """Digits in the upper half of the range: [0, 1] where [-1, 1] is expected."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return {**item, "image": item["image"].point(lambda value: 128 + value // 2)}


class Altered(ImageSource):
    """Digits of which something is the same everywhere, of which there are two, or which take their time."""

    columns = ("image", "label")
    image_channels = 1

    def __init__(self, *, fault: Fault, part: Part = "train") -> None:
        self.digits, self.fault = Digits(part), fault
        self.names = self.digits.names[:2] if fault == "few" else self.digits.names
        self.labels = [self[index]["label"] for index in range(len(self.names))] if fault != "slow" else None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.digits[0 if self.fault == "equal" else index]
        if self.fault == "blank":
            item["image"] = Image.new("L", (8, 8), 40)
        if self.fault == "one_label":
            item["label"] = 3
        if self.fault == "slow":
            for _ in range(8):
                np.linalg.svd(np.random.default_rng(index).normal(size=(48, 48)))
        return item


class DarkDigits(Digits):
    """Digits at night: they fill a quarter of the range, and are healthy all the same."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**super().__getitem__(index), "image": super().__getitem__(index)["image"].point(lambda v: v // 4)}


class GreyPhotos(Photos):
    """Photos in black and white, in the three channels that a network of colours wants."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        return {**item, "image": item["image"].convert("L").convert("RGB")}


class Hoarding(nn.Module):
    """The mean absolute error, by someone who keeps what he sees."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            self.kept.append(torch.ones(400_000))
        return (prediction - target).abs().mean()


class Jumpy(nn.Module):
    """The mean absolute error, forty times as much now and then, as by a weight that slipped."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.calls += torch.is_grad_enabled()
        return (prediction - target).abs().mean() * (40.0 if self.calls % 35 == 34 else 1.0)


class Root(nn.Module):
    """The root of the distance, whose slope is infinite where images agree."""

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return ((prediction - target).abs() - 0.2).sqrt().mean()


class Colours(Extractor):
    """Mean colours of quarters of an image: a teacher that needs no weights.

    Args:
        contrast: 0 says the same of every image.
    """

    def __init__(self, *, contrast: float = 1.0) -> None:
        super().__init__()
        self.contrast = contrast

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        colours = nn.functional.adaptive_avg_pool2d(images, (2, 2)).flatten(1)
        return (colours.repeat(1, 2)[:, :16] * self.contrast + 0.5,)
