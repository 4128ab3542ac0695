"""The range of images: what is refused, what is clamped, for all functions and classes that mean one range only.

One rule: a target lies in the range, 5 % of it forgiven; a prediction may leave it, networks do. What is no number
stays none, an infinite value becomes none when it is clamped: neither is ever turned into a valid colour.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from smalti.losses._reduction import at_least_float32
from smalti.nn.postponed import judge

Range = tuple[float, float]
SIGNED: Range = (-1.0, 1.0)
# Share of the range by which a target may leave it: resampling overshoots by rounding, [0, 255] by a factor of 100.
RANGE_TOLERANCE = 0.05


def ends(data_range: float | Sequence[float]) -> Range:
    """(low, high) of a ``data_range``: such a pair or, for images in [0, R], the number R.

    Raises:
        ValueError: for anything else.

    Example:
        >>> ends(255), ends((-1, 1))
        ((0.0, 255.0), (-1.0, 1.0))
    """
    pair = tuple(data_range) if isinstance(data_range, Sequence) else (0.0, data_range)
    numbers = len(pair) == 2 and all(isinstance(end, (int, float)) for end in pair)
    if not numbers or not -math.inf < pair[0] < pair[1] < math.inf:
        raise ValueError(f"data_range={data_range!r}: expected a number above 0, or (low, high)")
    return float(pair[0]), float(pair[1])


def check_images(prediction: Tensor, target: Tensor, allowed: Range) -> None:
    """Raises ValueError for whole numbers where real ones are meant, or a ``target`` outside the range ``allowed``.

    A training step on a GPU does not wait for the values: they are judged at its next log step.

    Args:
        prediction: with shape (B, C, H, W); its values may leave the range.
        target: same shape; on the meta device only its type is looked at.
        allowed: least and greatest value.

    Example:
        >>> check_images(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 255.0), (-1.0, 1.0))
        Traceback (most recent call last):
        ...
        ValueError: target has values from 255 to 255: expected images in [-1, 1]
    """
    low, high = allowed
    wanted = f"expected images in [{low:g}, {high:g}]"
    for name, images in (("prediction", prediction), ("target", target)):
        if images.is_complex() or not (images.is_floating_point() or high - low > 2.0):
            raise ValueError(f"{name} is {images.dtype}: {wanted.replace('images', 'floating images')}")
    if target.is_meta or target.numel() == 0 or torch.compiler.is_compiling():
        return
    slack = RANGE_TOLERANCE * (high - low)

    def complain(least: float, most: float) -> None:
        if least < low - slack or most > high + slack:
            raise ValueError(f"target has values from {least:.3g} to {most:.3g}: {wanted}")

    judge(target, (check_images, allowed), complain)


def floating(images: Tensor) -> Tensor:
    """``images`` of any shape and type in at least float32."""
    return at_least_float32(images) if images.is_floating_point() else images.float()


def clamped(images: Tensor, allowed: Range) -> Tensor:
    """``images`` of any shape clamped to the range, and nan where they are not finite.

    Example:
        >>> clamped(torch.tensor([0.5, -3.0, float("inf")]), (-1.0, 1.0))
        tensor([ 0.5000, -1.0000,     nan])
    """
    return images.clamp(*allowed) + (images - images).detach()
