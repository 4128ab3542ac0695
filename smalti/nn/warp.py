"""Moving pixels: flips, whole-pixel shifts, resampling. Each can be differentiated twice, as penalties need it.

``torch.nn.functional.grid_sample`` has no second derivative, so bilinear resampling is a gather of four neighbours.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from smalti.nn.memory_format import like


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Images (B, C, H, W), mirrored left to right where ``chosen``, bool with shape (B,), is true.

    >>> flip(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([True]))
    tensor([[[[2., 1.]]]])
    """
    return torch.where(chosen[:, None, None, None], images.flip(-1), images)


def translate(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images (B, C, H, W) moved down by ``rows`` and right by ``columns``, int64 (B,); 0 comes in from outside.

    >>> translate(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([0]), torch.tensor([1]))
    tensor([[[[0., 1.]]]])
    """
    height, width = images.shape[-2:]
    i = torch.arange(height, device=images.device) - rows[:, None]
    j = torch.arange(width, device=images.device) - columns[:, None]
    inside = ((i >= 0) & (i < height))[:, None, :, None] & ((j >= 0) & (j < width))[:, None, None, :]
    place = i.clamp(0, height - 1)[:, :, None] * width + j.clamp(0, width - 1)[:, None, :]
    return _at(images, place) * inside


def resample(images: Tensor, matrix: Tensor) -> Tensor:
    """Images (B, C, H, W) under affine maps, bilinear, continued by reflection at the border.

    Args:
        images: with shape (B, C, H, W).
        matrix: with shape (B, 2, 3), from a point (x, y, 1) of the result to its point in the image, both in [-1, 1]
            from edge to edge.

    >>> resample(torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]))
    tensor([[[[2., 1.]]]])
    """
    height, width = images.shape[-2:]
    size = [images.shape[0], images.shape[1], height, width]
    grid = F.affine_grid(matrix.to(images.dtype), size, align_corners=False)
    x, y = _reflected(grid[..., 0], width), _reflected(grid[..., 1], height)
    left, top = x.floor(), y.floor()
    right_share, low_share = (x - left)[:, None], (y - top)[:, None]
    columns = [left.long(), (left.long() + 1).clamp(max=width - 1)]
    rows = [top.long() * width, (top.long() + 1).clamp(max=height - 1) * width]
    upper, lower = (
        torch.lerp(_at(images, row + columns[0]), _at(images, row + columns[1]), right_share) for row in rows
    )
    return torch.lerp(upper, lower, low_share)


def _at(images: Tensor, place: Tensor) -> Tensor:
    """Pixels at ``place``, int64 (B, h, w) = row * W + column: (B, C, h, w)."""
    batch, channels = images.shape[:2]
    flat = place.reshape(batch, 1, -1).expand(-1, channels, -1)
    return like(images.flatten(2).gather(2, flat).reshape(batch, channels, *place.shape[1:]), images)


def _reflected(coordinate: Tensor, size: int) -> Tensor:
    """[-1, 1] from edge to edge -> pixel coordinates in [0, size - 1], mirrored at the edges."""
    position = ((coordinate + 1.0) * size / 2.0) % (2 * size)
    position = torch.where(position > size, 2 * size - position, position)
    return (position - 0.5).clamp(0, size - 1)
