"""Networks on large images in overlapping tiles, whose results are blended: memory of a tile instead of the image.

Each tile has the same size, the last one of a row ends at the border. Where tiles overlap, their results are averaged
with weights that rise and fall linearly and sum to 1. A network that looks at the whole image (normalisation over
positions, attention) sees the tile alone, so tiled results differ from whole ones; a network of convolutions gives the
same wherever the overlap is twice its reach.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor


@dataclass(frozen=True)
class Axis:
    """The tiles along one side.

    Args:
        starts: first position of each tile.
        size: positions of a tile.
        weights: float64, of each tile at its positions, with shape (tiles, size); they sum to 1 at every position.
    """

    starts: tuple[int, ...]
    size: int
    weights: Tensor


def axis(length: int, size: int, overlap: int) -> Axis:
    """Tiles of ``size`` that cover ``length`` positions, each sharing at least ``overlap`` with the next.

    Raises:
        ValueError: if ``overlap`` is not between 0 and ``size - 1``.

    Example:
        >>> found = axis(7, 4, 2)
        >>> found.starts, axis(6, 4, 2).weights.tolist()
        ((0, 2, 3), [[1.0, 1.0, 0.75, 0.25], [0.25, 0.75, 1.0, 1.0]])
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap={overlap}: expected 0 to {size - 1}, less than a tile")
    if length <= size:
        return Axis((0,), length, torch.ones(1, length, dtype=torch.float64))
    starts = (*range(0, length - size, size - overlap), length - size)
    position = torch.arange(size, dtype=torch.float64) + 0.5
    ramp = torch.minimum(position, size - position).clamp(max=max(overlap, 0.5)) / max(overlap, 0.5)
    weights = ramp.repeat(len(starts), 1)
    half = size // 2
    weights[0, :half], weights[-1, size - half :] = 1.0, 1.0  # no neighbour beyond the border
    total = torch.zeros(length, dtype=torch.float64)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + size] += weight
    return Axis(starts, size, torch.stack([w / total[s : s + size] for s, w in zip(starts, weights, strict=True)]))


def tiled(work: Callable[[Tensor], Tensor], value: Tensor, scale: Fraction, size: int, overlap: int) -> Tensor:
    """``work`` on overlapping tiles of ``value`` (B, C, H, W), its results blended.

    Args:
        work: maps (B, C, h, w) to (B, C', h * scale, w * scale).
        value: what it is to be applied to.
        scale: of sides: n, or 1 / n for a network that reduces them.
        size: side of a tile where the sides are smaller, before or after.
        overlap: that neighbouring tiles share at least, in the same unit.

    Returns:
        with shape (B, C', H * scale, W * scale); ``work(value)`` itself if one tile is enough.
    """
    before, after = scale.denominator, scale.numerator  # pixels of input and output in a unit
    units = [side // before for side in value.shape[-2:]]
    rows, columns = (axis(count * after, size * after, overlap * after) for count in units)
    if len(rows.starts) == len(columns.starts) == 1:
        return work(value)
    blended: Tensor | None = None
    for top, down in zip(rows.starts, rows.weights.to(value.dtype).to(value.device), strict=True):
        for left, across in zip(columns.starts, columns.weights.to(value.dtype).to(value.device), strict=True):
            made = work(value[..., _part(top, rows.size, scale), _part(left, columns.size, scale)])
            if blended is None:
                blended = made.new_zeros(*made.shape[:2], *(count * after for count in units))
            place = blended[..., top : top + rows.size, left : left + columns.size]
            place += made * (down[:, None] * across).to(made.dtype)
    assert blended is not None  # there is a tile
    return blended


def _part(start: int, size: int, scale: Fraction) -> slice:
    """The positions of the input that a tile of the output is made of."""
    return slice(int(start / scale), int((start + size) / scale))
