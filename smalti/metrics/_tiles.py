"""Rows in float64 a tile at a time, for what looks at all pairs of them."""

from collections.abc import Iterator

from torch import Tensor

TILE = 2048  # rows; a table of all pairs of two tiles has 32 MiB, and at d = 2048 so has a tile


def tiles(points: Tensor, shift: Tensor | float = 0.0) -> Iterator[tuple[int, Tensor]]:
    """Number of the first row, and float64 rows less ``shift``, of each tile of ``points`` with shape (N, d)."""
    for start in range(0, len(points), TILE):
        yield start, points[start : start + TILE].double() - shift
