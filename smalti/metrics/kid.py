"""KID: the squared maximum mean discrepancy of features with a cubic kernel, which has no bias."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.metrics._feature_metric import SetsMetric
from smalti.metrics._jackknife import Groups, check_groups, ends
from smalti.metrics._tiles import tiles


def kernel_distance(first: Tensor, second: Tensor) -> Tensor:
    """Unbiased MMD^2 with k(x, y) = (x.y / d + 1)^3 over all pairs, a scalar in float64 (Binkowski, arXiv:1801.01401).

    mean k(x, x') + mean k(y, y') - 2 mean k(x, y) over pairs of different rows, a tile of the kernel at a time. It may
    be below 0; with a single row on a side it is not a number.

    Args:
        first: M features x with shape (M, d).
        second: N features y with shape (N, d).

    Example:
        >>> kernel_distance(torch.tensor([[0.0], [0.0]]), torch.tensor([[1.0], [1.0]]))
        tensor(7., dtype=torch.float64)
    """
    sums = [_sum(*pair) for pair in ((first, first), (second, second), (first, second))]
    return _distance(torch.stack(sums), len(first), len(second))


def distances_left_out(first: Tensor, second: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """``kernel_distance``, and that without each group of rows of both, float64 with shape (G,).

    From sums over pairs of groups: all of it takes as long as the distance alone.

    Args:
        first: features with shape (N, d).
        second: as many.
        groups: how many; 0: none.
    """
    count = len(first)
    groups = min(groups, count)
    if groups < 2 or count < 3:
        return kernel_distance(first, second), first.new_zeros(0, dtype=torch.float64)
    parts = [(first[group::groups], second[group::groups]) for group in range(groups)]
    sums = torch.zeros(3, groups, groups, dtype=torch.float64)
    for i, (x, y) in enumerate(parts):
        for j, (a, b) in enumerate(parts):
            if i <= j:  # within a set the kernel is symmetric
                sums[0, i, j] = sums[0, j, i] = _sum(x, x if i == j else a)
                sums[1, i, j] = sums[1, j, i] = _sum(y, y if i == j else b)
            sums[2, i, j] = _sum(x, b)
    whole = sums.sum(dim=(1, 2))
    gone = sums.sum(dim=1) + sums.sum(dim=2) - sums.diagonal(dim1=1, dim2=2)
    left = [count - len(x) for x, _ in parts]
    without = [_distance(whole - gone[:, group], rows, rows) for group, rows in enumerate(left)]
    return _distance(whole, count, count), torch.stack(without)


def subset_distances(first: Tensor, second: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0) -> Tensor:
    """``kernel_distance`` of random subsets, float64 with shape (subsets,).

    Args:
        first: M features with shape (M, d).
        second: N features with shape (N, d).
        subsets: how many.
        size: of each, without repetition; if there are fewer rows, all of them.
        seed: of the choice.
    """
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(subsets):
        chosen = [points[torch.randperm(len(points), generator=random)[:size]] for points in (first, second)]
        found.append(kernel_distance(*chosen))
    return torch.stack(found)


class KID(SetsMetric):
    """Kernel distance of made from real images (B, C, H, W) in Inception-v3's features (Binkowski, arXiv:1801.01401).

    ``kid`` is over all pairs, one number without chance; ``kid_subsets`` is the published form, the mean over random
    subsets, and ``kid_subsets_deviation`` how much those differ. It has no bias that falls with the number of images,
    and may be below 0. With another network it is called after that.

    Args:
        extractor: the network; None for :class:`smalti.extractors.inception_v3.InceptionV3`, pretrained.
        subsets: number of subsets.
        subset_size: images in each; of fewer images all, and then all subsets are equal.
        seed: of the choice of subsets.
        groups: of images, left out in turn for ``_low`` and ``_high``, where the value lies with 95 %; 0: neither.
    """

    def __init__(
        self,
        extractor: Extractor | None = None,
        subsets: Annotated[int, Field(ge=1, le=100_000)] = 100,
        subset_size: Annotated[int, Field(ge=2, le=100_000)] = 1000,
        seed: Annotated[int, Field(ge=0)] = 0,
        groups: Groups = 0,
    ) -> None:
        super().__init__(extractor, "kid")
        self.groups = check_groups(groups)
        if subsets < 1 or subset_size < 2:
            raise ValueError(f"subsets={subsets}, subset_size={subset_size}: expected at least 1 and 2")
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed

    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """The three numbers, of features with shape (N, d)."""
        whole, without = distances_left_out(made, real, self.groups)
        if len(made) <= self.subset_size:
            some = whole.expand(1)
        else:
            some = subset_distances(made, real, subsets=self.subsets, size=self.subset_size, seed=self.seed)
        return {
            self.name: whole,
            f"{self.name}_subsets": some.mean(),
            f"{self.name}_subsets_deviation": some.std(correction=0),
            **ends(self.name, whole, without),
        }


def _distance(sums: Tensor, first: int, second: int) -> Tensor:
    """The distance from the kernel's sums (3,) over pairs of the one, of the other and of both sets of such sizes."""
    pairs = [first * (first - 1), second * (second - 1), first * second]
    means = [total / (number or torch.nan) for total, number in zip(sums, pairs, strict=True)]
    distance: Tensor = means[0] + means[1] - 2.0 * means[2]
    return distance


def _sum(first: Tensor, second: Tensor) -> Tensor:
    """Sum of k over all pairs of rows; of a set with itself over all pairs of different rows."""
    total = first.new_zeros((), dtype=torch.float64)
    same = first is second
    for i, x in tiles(first):
        for j, y in tiles(second):
            if same and j < i:  # the kernel is symmetric
                continue
            kernel = (x @ y.T).div_(first.shape[1]).add_(1.0)
            kernel = kernel * kernel * kernel
            if same and i == j:
                kernel.fill_diagonal_(0.0)
            total += kernel.sum() * (2.0 if same and i < j else 1.0)
    return total
