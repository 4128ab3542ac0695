"""What extractors do to images before they look at them."""

import torch
from torch import Tensor


def as_rgb(images: Tensor) -> Tensor:
    """``images`` with shape (B, 3, H, W); grey ones (B, 1, H, W) as three equal channels.

    Raises:
        ValueError: for anything else.
    """
    if images.ndim != 4 or images.shape[1] not in {1, 3}:
        raise ValueError(f"images have shape {tuple(images.shape)}: expected (B, 3, H, W), or (B, 1, H, W) for grey")
    return images.expand(-1, 3, -1, -1)


def area_resize(images: Tensor, height: int, width: int) -> Tensor:
    """Averages (B, C, H, W) over the exact area of each new pixel: (B, C, height, width).

    A pixel that lies half inside counts half, so sizes need not divide each other. Where they do it is average pooling,
    or repetition.

    Example:
        >>> area_resize(torch.tensor([[[[0.0, 3.0, 6.0]]]]), 1, 2)
        tensor([[[[1., 5.]]]])
    """
    rows = _overlaps(images.shape[2], height, images)
    columns = _overlaps(images.shape[3], width, images)
    return rows @ images @ columns.T


def _overlaps(old: int, new: int, like: Tensor) -> Tensor:
    """Share of each old pixel in each new one along one axis, with shape (new, old), rows summing to 1."""
    size = old / new
    starts = torch.arange(new, device=like.device, dtype=torch.float64)[:, None] * size
    pixels = torch.arange(old, device=like.device, dtype=torch.float64)
    inside = torch.minimum(starts + size, pixels + 1.0) - torch.maximum(starts, pixels)
    return (inside.clamp(min=0.0) / size).to(like.dtype)
