"""The images that a protocol measures, from decoded files to uint8 tensors."""

import random
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from smalti.data.transforms import Transform
from smalti.evaluation.protocol import Protocol, Resize

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
}


class Framing:
    """Crop and resize of one item by the words of a protocol, without any randomness.

    Args:
        protocol: whose ``crop``, ``size`` and ``resize`` count.
    """

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self._plain = None
        if protocol.crop != "resize_center":
            self._plain = Transform(size=protocol.size, crop=protocol.crop)

    def __call__(self, images: Mapping[str, Image.Image], rng: random.Random) -> dict[str, Tensor]:
        """Column name -> uint8 tensor with shape (C, H, W), from Pillow images of one size."""
        if self._plain is not None:
            return self._plain(images, rng)
        assert self.protocol.size is not None
        return {name: resize_center(image, self.protocol.size, self.protocol.resize) for name, image in images.items()}


def resize_center(image: Image.Image, size: int, resize: Resize) -> Tensor:
    """The middle of an image whose shorter side was resized to ``size``: uint8 with shape (C, size, size).

    The longer side is cut down to whole pixels, and the middle begins at half the rest, rounded to the even one, as
    torchvision's Resize and CenterCrop do. With ``bilinear_plain`` it is rounded, and the middle begins at half the
    rest, rounded down, as albumentations' SmallestMaxSize and CenterCrop do over OpenCV.
    """
    width, height = image.size
    short = min(width, height)
    if resize == "bilinear_plain":
        scale = size / short
        target = round(width * scale), round(height * scale)
        pixels = _plain_bilinear(image, target)
        top, left = ((side - size) // 2 for side in (target[1], target[0]))
    else:
        longer = int(size * max(width, height) / short)
        target = (longer, size) if width > height else (size, longer)
        pixels = _pixels(_resized(image, target, resize))
        top, left = (round((side - size) / 2) for side in (target[1], target[0]))
    return pixels[:, top : top + size, left : left + size].contiguous()


def _resized(image: Image.Image, target: tuple[int, int], resize: Resize) -> Image.Image:
    return image if image.size == target else image.resize(target, FILTERS[resize])


def _plain_bilinear(image: Image.Image, target: tuple[int, int]) -> Tensor:
    """Two neighbours a direction with half-pixel centres, no antialiasing, in OpenCV's whole numbers.

    OpenCV rounds shares to 1/2048 and cuts bits off on the way, which moves an eighth of the pixels by one level.
    """
    pixels = _pixels(image)
    if image.size == target:
        return pixels
    values = pixels.to(torch.int64)
    left, right, near, far = _neighbours(values.shape[2], target[0], at_border=True)
    rows = values[:, :, left] * near + values[:, :, right] * far
    above, below, near, far = _neighbours(values.shape[1], target[1], at_border=False)
    upper, lower = ((rows[:, of] >> 4) * share[:, None] >> 16 for of, share in ((above, near), (below, far)))
    return ((upper + lower + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _neighbours(old: int, new: int, at_border: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Both neighbours of each new pixel along an axis and their shares of 2048; at a border the one there, if asked."""
    places = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = places.floor()
    share = places - first
    if at_border:
        share[(first < 0) | (first >= old - 1)] = 0.0
    near, far = (((part * 2048).round()).long() for part in (1 - share, share))
    return first.long().clamp(0, old - 1), (first.long() + 1).clamp(0, old - 1), near, far


def _pixels(image: Image.Image) -> Tensor:
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1)))
