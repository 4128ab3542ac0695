"""The images that a protocol measures, from decoded files to uint8 tensors."""

import random
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

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
    torchvision's Resize and CenterCrop do.
    """
    width, height = image.size
    short, long = sorted((width, height))
    longer = int(size * long / short)
    target = (longer, size) if width > height else (size, longer)
    pixels = _plain_bilinear(image, target) if resize == "bilinear_plain" else _pixels(_resized(image, target, resize))
    top, left = (round((side - size) / 2) for side in (target[1], target[0]))
    return pixels[:, top : top + size, left : left + size].contiguous()


def _resized(image: Image.Image, target: tuple[int, int], resize: Resize) -> Image.Image:
    return image if image.size == target else image.resize(target, FILTERS[resize])


def _plain_bilinear(image: Image.Image, target: tuple[int, int]) -> Tensor:
    """Two neighbours a direction with half-pixel centres, rounded: no antialiasing."""
    pixels = _pixels(image)
    if image.size == target:
        return pixels
    found = F.interpolate(pixels[None].float(), (target[1], target[0]), mode="bilinear", align_corners=False)[0]
    return found.round().clamp(0, 255).to(torch.uint8)


def _pixels(image: Image.Image) -> Tensor:
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1)))
