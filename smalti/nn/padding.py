"""Padding images to a size that a network takes."""

from torch import Tensor
from torch.nn import functional as F


def pad_to_multiple(images: Tensor, factor: int) -> Tensor:
    """Images (B, C, H, W) continued right and bottom until ``factor`` divides both sides.

    By reflection if the image is large enough, else by repeating the border.

    >>> import torch
    >>> pad_to_multiple(torch.zeros(1, 3, 30, 33), 16).shape
    torch.Size([1, 3, 32, 48])
    """
    height, width = images.shape[-2:]
    bottom, right = -height % factor, -width % factor
    mode = "reflect" if bottom < height and right < width else "replicate"
    return F.pad(images, (0, right, 0, bottom), mode=mode) if bottom or right else images
