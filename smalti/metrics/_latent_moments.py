"""Moments of latents up to the fourth by channel, and their covariance, in one tensor whose parts merge exactly.

Of C channels it is float64 with shape (C + 5, C + 1). The first C + 1 rows are the total that ``_moments`` tells:
number of positions, means, scatter. Then the sums over positions, from column 1 on, of the third and fourth power
about the mean, of the KL divergence of the posterior from N(0, 1) and of its variance; column 0 of the last counts its
positions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smalti.metrics._moments import add_rows, add_total, new_total

THIRD, FOURTH, KL, VARIANCE = -4, -3, -2, -1
EXTRA = 4


def sums_of(latent: Tensor, divergence: Tensor | None = None, variance: Tensor | None = None) -> Tensor:
    """The sums of latents with shape (B, C, ...), and of divergence and variance of their posteriors, of this shape."""
    rows = _rows(latent)
    total = new_total(rows.shape[1], rows.device)
    add_rows(total, rows)
    sums = torch.cat([total, total.new_zeros(EXTRA, total.shape[1])])
    off = rows - rows.mean(dim=0) if len(rows) else rows
    sums[THIRD, 1:], sums[FOURTH, 1:] = off.pow(3).sum(dim=0), off.pow(4).sum(dim=0)
    if divergence is not None and variance is not None:
        sums[KL, 1:], sums[VARIANCE, 1:] = _rows(divergence).sum(dim=0), _rows(variance).sum(dim=0)
        sums[VARIANCE, 0] = len(rows)
    return sums


def merged_sums(parts: Sequence[Tensor]) -> Tensor:
    """The sums of all positions of some parts (Pebay 2008, doi:10.2172/1028931); of no part with shape (0, 0)."""
    filled = [part for part in parts if part.numel()]
    if not filled:
        return torch.zeros(0, 0, dtype=torch.float64)
    whole = filled[0].clone()
    for part in filled[1:]:
        _add(whole, part)
    return whole


def _add(whole: Tensor, part: Tensor) -> None:
    count, added = whole[0, 0].item(), part[0, 0].item()
    if added:
        both, step = count + added, part[0, 1:] - whole[0, 1:]
        squares = _scatter(whole), _scatter(part)
        third = step.pow(3) * count * added * (count - added) / both**2
        third += 3 * step * (count * squares[1] - added * squares[0]) / both
        fourth = step.pow(4) * count * added * (count**2 - count * added + added**2) / both**3
        fourth += 6 * step.square() * (count**2 * squares[1] + added**2 * squares[0]) / both**2
        fourth += 4 * step * (count * part[THIRD, 1:] - added * whole[THIRD, 1:]) / both
        whole[THIRD, 1:] += part[THIRD, 1:] + third
        whole[FOURTH, 1:] += part[FOURTH, 1:] + fourth
        add_total(whole[:-EXTRA], part[:-EXTRA])
    whole[KL:] += part[KL:]


def _scatter(sums: Tensor) -> Tensor:
    """Sum of squares about the mean of each channel, with shape (C,)."""
    return sums[1:-EXTRA, 1:].diagonal().clone()


def _rows(values: Tensor) -> Tensor:
    """Values (B, C, ...) as float64 rows (N, C), a position each."""
    return values.detach().double().movedim(1, -1).reshape(-1, values.shape[1])
