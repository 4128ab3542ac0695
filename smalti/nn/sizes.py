"""Sizes of images as options give them: a side, or height and width; powers of two where halving must come out even."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.registry import UserError

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
MOST_LAYERS = 1000
Layers = Annotated[int, Field(ge=1, le=MOST_LAYERS)]
LayersOrNone = Annotated[int, Field(ge=0, le=MOST_LAYERS)]
Halvings = Annotated[int, Field(ge=1, le=16)]  # of a side, one layer each: no image has 2^17 pixels
Size = Positive | tuple[Positive, Positive]


def height_and_width(size: int | tuple[int, int]) -> tuple[int, int]:
    """A size as height and width.

    >>> height_and_width(8), height_and_width((2, 3))
    ((8, 8), (2, 3))
    """
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def power_of_two(size: int, least: int = 4, most: int = 1024) -> int:
    """The exponent of ``size``.

    >>> power_of_two(32)
    5

    Raises:
        ValueError: unless it is a power of two between ``least`` and ``most``.
    """
    if not least <= size <= most or size & (size - 1):
        raise ValueError(f"image_size={size!r}: expected a power of two between {least} and {most}")
    return size.bit_length() - 1


def check_classes(labels: Tensor, num_classes: int) -> None:
    """Refuses labels (B,) that are no whole numbers from 0 to ``num_classes`` - 1.

    Their values are looked at on a CPU; on a device one would have to wait for them.

    >>> check_classes(torch.tensor([0, 1]), 2)

    Raises:
        UserError: naming the first that is none.
    """
    expected = f"expected whole numbers from 0 to {num_classes - 1}"
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UserError(f"labels are {labels.dtype}: {expected}")
    if labels.device.type != "cpu":
        return
    outside = labels[(labels < 0) | (labels >= num_classes)]
    if outside.numel():
        raise UserError(f"label {int(outside[0])}: {expected}")
