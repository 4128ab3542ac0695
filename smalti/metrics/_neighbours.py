"""Balls around features that reach to the k-th neighbour, and what lies in them, a tile of distances at a time."""

import math

import torch
from torch import Tensor

from smalti.metrics._tiles import tiles

# Share of the squared lengths within which two squared distances are taken as equal: of equal ones sums in another
# order differ in the last digits, and which of them is larger must not decide.
ROUNDING = 1e-12


def radii(points: Tensor, k: int) -> Tensor:
    """Squared distance of each point to its k-th nearest other one, float64 with shape (N,).

    A point's own distance of 0 is not counted, that of an equal one is. With fewer others it is the farthest, with none
    0.

    Args:
        points: with shape (N, d).
        k: at least 1.

    Example:
        >>> radii(torch.tensor([[0.0], [1.0], [5.0]]), 1)
        tensor([ 1.,  1., 16.], dtype=torch.float64)
    """
    k = min(k, len(points) - 1)
    if k < 1:
        return torch.zeros(len(points), dtype=torch.float64)
    centre = _centre(points)
    found = []
    for i, rows in tiles(points, centre):
        best = torch.full((len(rows), k), torch.inf, dtype=torch.float64)
        for j, columns in tiles(points, centre):
            squares = _squares(rows, columns)
            if i == j:
                squares.fill_diagonal_(torch.inf)
            best = torch.cat([best, squares], dim=1).topk(k, dim=1, largest=False).values
        found.append(best[:, -1])
    return torch.cat(found)


def inside(queries: Tensor, centres: Tensor, squared_radii: Tensor, *, closed: bool = True) -> tuple[Tensor, Tensor]:
    """In how many balls each query lies, and how many queries each ball holds, int64 with shapes (M,) and (N,).

    Args:
        queries: with shape (M, d).
        centres: of the balls, with shape (N, d).
        squared_radii: with shape (N,).
        closed: whether what lies on the border, up to rounding, is inside.

    Example:
        >>> points, balls = torch.tensor([[0.5], [2.0], [9.0]]), torch.tensor([[0.0], [1.0]])
        >>> inside(points, balls, torch.tensor([1.0, 1.0]))
        (tensor([2, 1, 0]), tensor([1, 2]))
        >>> inside(points, balls, torch.tensor([1.0, 1.0]), closed=False)
        (tensor([2, 0, 0]), tensor([1, 1]))
    """
    centre = _centre(centres)
    of_query = torch.zeros(len(queries), dtype=torch.int64)
    of_ball = torch.zeros(len(centres), dtype=torch.int64)
    for i, balls in tiles(centres, centre):
        lengths = balls.square().sum(dim=1)
        for j, some in tiles(queries, centre):
            slack = ROUNDING * (lengths + some.square().sum(dim=1).amax())
            squares, reach = _squares(balls, some), squared_radii[i : i + len(balls)].to(slack)
            held = squares <= (reach + slack)[:, None] if closed else squares < (reach - slack)[:, None]
            of_ball[i : i + len(balls)] += held.sum(dim=1)
            of_query[j : j + len(some)] += held.sum(dim=0)
    return of_query, of_ball


def one_if_finite(*sets: Tensor) -> float:
    """1, or not a number if any feature of ``sets``, each (N, d), is none: comparisons would count it as far away."""
    return 1.0 if all(bool(rows.isfinite().all()) for points in sets for _, rows in tiles(points)) else math.nan


def _squares(rows: Tensor, columns: Tensor) -> Tensor:
    """Squared distances (m, n) of float64 rows (m, d) and columns (n, d)."""
    lengths = rows.square().sum(dim=1)[:, None] + columns.square().sum(dim=1)
    return lengths.addmm_(rows, columns.T, alpha=-2.0).clamp_min_(0.0)


def _centre(points: Tensor) -> Tensor:
    """Taken off all points, so that little cancels in their distances; with shape (d,)."""
    total = torch.zeros(points.shape[1], dtype=torch.float64)
    for _, rows in tiles(points):
        total += rows.sum(dim=0)
    return total / max(len(points), 1)
