"""What extractors do to images before they look at them."""

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.nn.constants import constant
from smalti.nn.memory_format import like

Channels = Sequence[Annotated[int, Field(ge=0)]]


def as_rgb(images: Tensor) -> Tensor:
    """``images`` with shape (B, 3, H, W); grey ones (B, 1, H, W) as three equal channels.

    Raises:
        ValueError: for anything else.
    """
    if images.ndim != 4 or images.shape[1] not in {1, 3}:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: expected (B, 3, H, W), or (B, 1, H, W) for grey; an option "
            "channels, as [0, 1, 2], chooses"
        )
    return images.expand(-1, 3, -1, -1)


def seen(images: Tensor, channels: Channels | None) -> Tensor:
    """The ``channels`` of images (B, C, H, W), in that order: (B, len(channels), H, W); all of them for None.

    Raises:
        ValueError: if the images have no such channel.

    Example:
        >>> seen(torch.arange(4.0).reshape(1, 4, 1, 1), [2, 0]).flatten()
        tensor([2., 0.])
    """
    if channels is None:
        return images
    if images.ndim != 4 or max(channels) >= images.shape[1]:
        raise ValueError(
            f"channels={list(channels)}: images have shape {tuple(images.shape)}, no channel {max(channels)}"
        )
    return like(images[:, constant(channels, torch.int64, images.device)], images)


def chosen(channels: Channels | None) -> tuple[int, ...] | None:
    """``channels`` as an option keeps them: None, or numbers of channels counted from 0, of which one may stand twice.

    Raises:
        ValueError: for no channel, or a negative one.
    """
    if channels is None:
        return None
    if not channels or min(channels) < 0:
        raise ValueError(f"channels={list(channels)}: expected one or more numbers of channels, counted from 0")
    return tuple(channels)


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
    return like(rows @ images @ columns.T, images)


def resize_like_tensorflow1(images: Tensor, height: int, width: int) -> Tensor:
    """Bilinear as TensorFlow 1 resized (B, C, H, W) to (B, C, height, width): corners, not centres, of pixels agree.

    Pixel i of the result lies at i times the old size over the new, rounded to float32; nothing is averaged, so much
    smaller images have aliases.

    Example:
        >>> resize_like_tensorflow1(torch.tensor([[[[0.0, 3.0, 6.0]]]]), 1, 2)
        tensor([[[[0.0000, 4.5000]]]])
    """
    above, below, share = _corners(images.shape[2], height, images)
    rows = torch.lerp(images[:, :, above], images[:, :, below], share[:, None])
    before, behind, share = _corners(images.shape[3], width, images)
    return like(torch.lerp(rows[..., before], rows[..., behind], share), images)


def _corners(old: int, new: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each new pixel along one axis: the old one at or before it, the next, and the share of that; each (new,)."""
    scale = torch.full((), old, dtype=torch.float32, device=like.device) / new
    places = torch.arange(new, dtype=torch.float32, device=like.device) * scale
    lower = places.floor().long().clamp(max=old - 1)
    return lower, (lower + 1).clamp(max=old - 1), (places - lower).to(like.dtype)


def _overlaps(old: int, new: int, like: Tensor) -> Tensor:
    """Share of each old pixel in each new one along one axis, with shape (new, old), rows summing to 1."""
    size = old / new
    starts = torch.arange(new, device=like.device, dtype=torch.float64)[:, None] * size
    pixels = torch.arange(old, device=like.device, dtype=torch.float64)
    inside = torch.minimum(starts + size, pixels + 1.0) - torch.maximum(starts, pixels)
    return (inside.clamp(min=0.0) / size).to(like.dtype)
