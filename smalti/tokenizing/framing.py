"""The views of an image that a store holds: whole, with its mirror image, or ten crops at some ratios.

Ten crops are those of LlamaGen and FQGAN (arXiv:2406.06525, 2411.16681): the middle of ``int(size ratio)`` pixels, as
ADM crops it, then its corners and its middle of ``size`` pixels, then the same five of the mirror image.
"""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor

from smalti.data.transforms import Transform
from smalti.registry import UserError

Views = Literal["none", "flip", "ten-crop"]
RATIO = 1.1
LARGEST_RATIO = 8.0
_CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right", "middle")


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Which views.

    Args:
        size: side that images are resized to cover, and whose middle is taken; None: images as they are.
        views: ``none`` (one), ``flip`` (two), ``ten-crop`` (ten for each ratio).
        crop_ratios: of ten crops, each at least 1; () stands for 1.1.

    Raises:
        UserError: for ten crops without a size, ratios without ten crops, or ratios that are none.
    """

    size: int | None = None
    views: Views = "none"
    crop_ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.views not in {"none", "flip", "ten-crop"}:
            raise UserError(f"views={self.views!r}: expected none, flip or ten-crop")
        if self.crop_ratios and self.views != "ten-crop":
            raise UserError(f"crop ratios need views='ten-crop': views={self.views!r} has none")
        if self.views == "ten-crop" and self.size is None:
            raise UserError("ten crops need a size: --size 256")
        for ratio in self.crop_ratios:
            if not math.isfinite(ratio) or not 1 <= ratio <= LARGEST_RATIO:
                raise UserError(f"crop ratio {ratio}: expected 1 to {LARGEST_RATIO:g}")
        if len(set(self.crop_ratios)) < len(self.crop_ratios):
            raise UserError(f"crop ratios {', '.join(map(str, self.crop_ratios))}: expected each once")

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of ten crops."""
        return self.crop_ratios or (RATIO,)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the views, in order."""
        if self.views != "ten-crop":
            return ("whole", "flip")[: 1 + (self.views == "flip")]
        mirrored = [(corner, flip) for flip in ("", ":flip") for corner in _CORNERS]
        return tuple(f"{ratio:g}:{corner}{flip}" for ratio in self.ratios for corner, flip in mirrored)

    def described(self) -> dict[str, Any]:
        """How images are cropped, for ``store.json``."""
        found: dict[str, Any] = {"crop": "none" if self.size is None else "adm_center", "views": self.views}
        return found | ({"crop_ratios": list(self.ratios)} if self.views == "ten-crop" else {})

    def __call__(self, images: Mapping[str, Image.Image], rng: random.Random) -> dict[str, Tensor]:
        """All views of ``image`` as uint8 (V, C, H, W); nothing is drawn."""
        shown = [{"image": transform(images, rng)["image"]} for transform in self._transforms]
        if self.views == "ten-crop":
            views = [view for one in shown for view in _ten_crops(one["image"], self.size or 0)]
        else:
            whole = shown[0]["image"]
            views = [whole, whole.flip(2)][: len(self.names)]
        return {"image": torch.stack(views)}

    @cached_property
    def _transforms(self) -> list[Transform]:
        if self.size is None:
            return [Transform()]
        sides = [int(self.size * ratio) for ratio in self.ratios] if self.views == "ten-crop" else [self.size]
        return [Transform(size=side, crop="adm_center") for side in sides]


def _ten_crops(image: Tensor, size: int) -> list[Tensor]:
    """Ten crops (C, size, size) of a square image (C, S, S)."""
    return [crop for one in (image, image.flip(2)) for crop in _five_crops(one, size)]


def _five_crops(image: Tensor, size: int) -> list[Tensor]:
    spare = image.shape[1] - size
    middle = round(spare / 2)  # halves to even, as torchvision rounds
    corners = [(0, 0), (0, spare), (spare, 0), (spare, spare), (middle, middle)]
    return [image[:, top : top + size, left : left + size] for top, left in corners]
