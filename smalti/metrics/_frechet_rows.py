"""The Frechet distance of rows of features that are all there, and how sure it is."""

import torch
from torch import Tensor

from smalti.metrics._jackknife import left_out
from smalti.metrics._moments import (
    Moments,
    add_rows,
    frechet_distance,
    moments_of,
    new_total,
    root_of,
    without_total,
)

CHUNK = 2048  # rows that are in float64 at once


def total_of_rows(rows: Tensor) -> Tensor:
    """The total, with shape (d + 1, d + 1), of rows (N, d), which may lie in a file."""
    total = new_total(rows.shape[1])
    for first in range(0, len(rows), CHUNK):
        add_rows(total, rows[first : first + CHUNK])
    return total


def distances_left_out(real: Tensor | Moments, made: Tensor, groups: int) -> Tensor:
    """The Frechet distance without each of some groups of images, float64 with shape (G,).

    With more images than features it costs two passes over the features and G distances: at d = 2048 some 1.5 s of a
    core each. With fewer the roots are those of an (N, N) matrix, which is less.

    Args:
        real: features with shape (N, d), or moments, which stay.
        made: features with shape (N, d).
        groups: how many; 0: none.
    """
    count, width = made.shape
    if count - -(-count // max(groups, 1)) > width:
        return _by_totals(real, made, groups)
    root = root_of(real.covariance) if isinstance(real, Moments) else None
    return left_out(count, groups, lambda rows: _of_few(real, root, made, rows))


def _by_totals(real: Tensor | Moments, made: Tensor, groups: int) -> Tensor:
    wholes = [None if isinstance(side, Moments) else total_of_rows(side) for side in (real, made)]

    def number(kept: Tensor) -> Tensor:
        gone = torch.ones(len(made), dtype=torch.bool)
        gone[kept] = False
        rows = gone.nonzero()[:, 0]
        found = []
        for side, whole in zip((real, made), wholes, strict=True):
            if isinstance(side, Moments) or whole is None:
                found.append(side)
            else:
                found.append(moments_of(without_total(whole, total_of_rows(side[rows]))))
        return frechet_distance(*found)  # type: ignore[arg-type]

    return left_out(len(made), groups, number)


def _of_few(real: Tensor | Moments, root: Tensor | None, made: Tensor, rows: Tensor) -> Tensor:
    """Of n rows with centred A and B: tr (S S')^(1/2) is the sum of the singular values of A B^T / (n - 1)."""
    mean, off = _centred(made[rows])
    if isinstance(real, Moments):
        assert root is not None
        reference, trace, product = real.mean, real.covariance.trace(), off @ root
        scale = (len(rows) - 1) ** 0.5
    else:
        reference, others = _centred(real[rows])
        trace, product = others.square().sum() / (len(rows) - 1), off @ others.T
        scale = len(rows) - 1
    common = torch.linalg.eigvalsh(product @ product.T).clamp_min(0.0).sqrt().sum() / scale
    apart = (mean - reference).square().sum() + off.square().sum() / (len(rows) - 1) + trace
    distance: Tensor = apart - 2.0 * common
    return distance.clamp_min(0.0)


def _centred(rows: Tensor) -> tuple[Tensor, Tensor]:
    rows = rows.double()
    mean = rows.mean(dim=0)
    return mean, rows - mean
