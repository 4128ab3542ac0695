"""Sizes of images as options give them: a side, or height and width; powers of two where halving must come out even."""

from typing import Annotated

from pydantic import Field

Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
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
