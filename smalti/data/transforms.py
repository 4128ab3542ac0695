"""From a decoded image to a uint8 tensor: resize, crop and flip, with randomness that the caller hands in.

One draw serves all image columns of an item, so a mask stays on its image. The two ADM crops are those of the
guided-diffusion loader (Dhariwal & Nichol, arXiv:2105.05233), which FQGAN and LlamaGen train and evaluate with.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
import torch
from PIL import Image
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.data._buckets import bucket_shapes, nearest_shape
from smalti.registry import UserError

Crop = Literal["none", "resize", "center", "random", "adm_center", "adm_random"]
Size = Annotated[int, Field(ge=1)]
_Step = Callable[[Image.Image, Image.Resampling, Image.Resampling], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Shapes for images of mixed aspect ratios, each of about as many pixels as the square ``size`` x ``size``.

    Args:
        step: divides all sides; a multiple of the model's factor.
        ratio: the long side is at most so many times the short one.
    """

    step: Size = 32
    ratio: Annotated[float, Field(ge=1)] = 2.0


@dataclass(frozen=True, kw_only=True)
class Transform:
    """Resize, crop and flip of one item.

    ========== =========================================================================================
    crop       what it does
    ========== =========================================================================================
    none       the whole image as it is; ``size`` must be None
    resize     bicubic to exactly ``size``, whatever the aspect ratio was
    center     the middle, not resized
    random     a random patch, not resized
    adm_center halve with BOX while twice too large, bicubic until it just covers ``size``, the middle
    adm_random the same to a random size up to 1 / ``min_crop_fraction`` times larger, a random patch
    ========== =========================================================================================

    An image smaller than ``size`` is first enlarged with bicubic until it just covers it. Masks are resized with
    nearest neighbour, all other columns with BOX and bicubic.

    Args:
        size: side of the square crop, or (height, width); None only for ``crop: none``.
        crop: see the table.
        flip: mirror left to right with probability 1/2.
        min_crop_fraction: smallest part of the short side that ``adm_random`` may keep.
        max_crop_fraction: largest part of the short side that ``adm_random`` may keep.
        fast: cut the crop out of the decoded image and resize only that, in one antialiased bicubic step of torch. Half
            of the time, with the same draws; but edges of the crop fall on whole pixels of the source, so the images
            are not pixel for pixel those of the default, which measurements should use.
        buckets: crop to the shape of about ``size`` squared pixels that is nearest to the image's own aspect ratio, so
            that little is cut away; a batch has one shape (as trainers of diffusion models do since NovelAI, 2022).
    """

    size: Size | tuple[Size, Size] | None = None
    crop: Crop = "none"
    flip: bool = False
    min_crop_fraction: Annotated[float, Field(gt=0, le=1)] = 0.8
    max_crop_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    fast: bool = False
    buckets: Buckets | None = None

    def __post_init__(self) -> None:
        if (self.size is None) != (self.crop == "none"):
            expected = "no size for crop='none'" if self.crop == "none" else f"a size for crop={self.crop!r}"
            raise ValueError(f"size={self.size!r}: expected {expected}")
        if self.size is not None and min(self.shape) < 1:
            raise ValueError(f"size={self.size!r}: expected a positive number of pixels or (height, width)")
        if not 0 < self.min_crop_fraction <= self.max_crop_fraction <= 1:
            fractions = f"{self.min_crop_fraction!r}, max_crop_fraction={self.max_crop_fraction!r}"
            raise ValueError(f"min_crop_fraction={fractions}: expected 0 < min <= max <= 1")
        if self.buckets is not None and (not isinstance(self.size, int) or self.size % self.buckets.step):
            step = self.buckets.step
            raise ValueError(f"size={self.size!r}: expected one number with buckets, divisible by their step {step}")

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of what comes out.

        Raises:
            ValueError: if the whole image comes out.
        """
        if self.size is None:
            raise ValueError("size=None: the size of a whole image is not known in advance")
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Every height and width that may come out, from tall to wide.

        Raises:
            ValueError: if the whole image comes out.
        """
        if self.buckets is None:
            return (self.shape,)
        return bucket_shapes(self.shape[0], self.buckets.step, self.buckets.ratio)

    def to(self, shape: tuple[int, int]) -> "Transform":
        """The same crop to one shape, without buckets."""
        return replace(self, size=shape, buckets=None)

    def __call__(self, images: Mapping[str, Image.Image], rng: random.Random) -> dict[str, Tensor]:
        """Applies one draw from ``rng`` to all image columns of an item.

        Args:
            images: column name -> Pillow image, ``image`` among them, all of one size.
            rng: where every random number comes from.

        Returns:
            Column name -> uint8 tensor with shape (C, H, W).

        Raises:
            UserError: if a column is of another size than the image.
        """
        size = images["image"].size
        for name, value in images.items():
            if value.size != size:
                raise UserError(f"column {name!r} is {_words(value.size)} pixels, its image is {_words(size)}")
        if self.buckets is not None:
            shapes = self.shapes
            return self.to(shapes[nearest_shape(shapes, (size[1], size[0]))])(images, rng)
        if self.fast and self.crop != "none":
            box, mirrored = self._box(size, rng), self.flip and rng.random() < 0.5
            return {
                name: _resampled(value, box, self.shape, mirrored, nearest=name == "mask")
                for name, value in images.items()
            }
        steps = self._plan(size, rng)
        return {name: _to_tensor(_apply(steps, value, nearest=name == "mask")) for name, value in images.items()}

    def _plan(self, size: tuple[int, int], rng: random.Random) -> list[_Step]:
        """The steps for an image of ``size`` (width, height). Order of draws as in ADM: size, top, left; then flip."""
        steps: list[_Step] = []
        if self.crop == "resize":
            steps.append(_resize((self.shape[1], self.shape[0])))
        elif self.crop != "none":
            steps, size = self._cover(size, rng)
            steps.append(self._window(size, rng))
        if self.flip and rng.random() < 0.5:
            steps.append(_mirror)
        return steps

    def _cover(self, size: tuple[int, int], rng: random.Random) -> tuple[list[_Step], tuple[int, int]]:
        """Steps until the image covers the crop, and the size (width, height) that they give."""
        height, width = self.shape
        if not self.crop.startswith("adm") and size[0] >= width and size[1] >= height:
            return [], size
        if self.crop == "adm_random":
            short = min(height, width)
            bounds = math.ceil(short / self.max_crop_fraction), math.ceil(short / self.min_crop_fraction)
            drawn = rng.randrange(bounds[0], bounds[1] + 1)
            height, width = (max(side, round(side * drawn / short)) for side in (height, width))
        steps: list[_Step] = []
        while size[0] >= 2 * width and size[1] >= 2 * height:
            size = size[0] // 2, size[1] // 2
            steps.append(_halve(size))
        scale = max(width / size[0], height / size[1])
        size = round(size[0] * scale), round(size[1] * scale)
        steps.append(_resize(size))
        return steps, size

    def _window(self, size: tuple[int, int], rng: random.Random) -> _Step:
        """The crop out of an image of ``size`` (width, height)."""
        top, left = self._corner(size, rng)
        box = (left, top, left + self.shape[1], top + self.shape[0])
        return lambda image, coarse, fine: image.crop(box)

    def _corner(self, size: tuple[int, int], rng: random.Random) -> tuple[int, int]:
        """Top and left of the crop in an image of ``size`` (width, height)."""
        height, width = self.shape
        spare = size[1] - height, size[0] - width
        if self.crop.endswith("random"):
            return rng.randrange(spare[0] + 1), rng.randrange(spare[1] + 1)
        return spare[0] // 2, spare[1] // 2

    def _box(self, size: tuple[int, int], rng: random.Random) -> tuple[slice, slice]:
        """Rows and columns of an image of ``size`` (width, height) that the crop shows; draws as :meth:`_plan`."""
        if self.crop == "resize":
            return slice(0, size[1]), slice(0, size[0])
        _, covering = self._cover(size, rng)
        corner = self._corner(covering, rng)
        rows, columns = (
            _stretch(start, length, sides[0] / sides[1], sides[0])
            for start, length, sides in zip(
                corner, self.shape, zip(reversed(size), reversed(covering), strict=True), strict=True
            )
        )
        return rows, columns


def _stretch(start: int, length: int, scale: float, side: int) -> slice:
    """A stretch of the resized image in whole pixels of the source, whose side has ``side`` of them."""
    pixels = min(max(round(length * scale), 1), side)
    first = min(round(start * scale), side - pixels)
    return slice(first, first + pixels)


def _resampled(
    image: Image.Image, box: tuple[slice, slice], shape: tuple[int, int], mirrored: bool, nearest: bool
) -> Tensor:
    """The box of an image as uint8 (C, *shape); torch and Pillow share the formula of the filter.

    Channels stay last until the end: torch's resampling of three or four interleaved bytes is its fastest.
    """
    array = np.array(image, dtype=np.uint8)
    pixels = torch.from_numpy(array if array.ndim == 3 else array[:, :, None]).permute(2, 0, 1)
    patch = pixels[:, *box]
    if patch.shape[1:] != shape:
        how = {"mode": "nearest-exact"} if nearest else {"mode": "bicubic", "antialias": True}
        patch = F.interpolate(patch[None], shape, **how)[0]
    return (patch.flip(2) if mirrored else patch).contiguous()


def _resize(size: tuple[int, int]) -> _Step:
    return lambda image, coarse, fine: image.resize(size, fine)


def _halve(size: tuple[int, int]) -> _Step:
    return lambda image, coarse, fine: image.resize(size, coarse)


def _mirror(image: Image.Image, coarse: Image.Resampling, fine: Image.Resampling) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _apply(steps: list[_Step], image: Image.Image, nearest: bool) -> Image.Image:
    resampling = Image.Resampling
    coarse, fine = (resampling.NEAREST, resampling.NEAREST) if nearest else (resampling.BOX, resampling.BICUBIC)
    for step in steps:
        image = step(image, coarse, fine)
    return image


def _to_tensor(image: Image.Image) -> Tensor:
    """A Pillow image of 8-bit channels as a uint8 tensor with shape (C, H, W)."""
    array = np.array(image, dtype=np.uint8, ndmin=3)
    if image.getbands() != ("L",):
        array = np.ascontiguousarray(array.transpose(2, 0, 1))
    return torch.from_numpy(array)


def _words(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
