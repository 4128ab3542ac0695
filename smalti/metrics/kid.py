"""KID: the squared maximum mean discrepancy of features with a cubic kernel, which has no bias."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.metrics._feature_metric import SetsMetric
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
    within = [_sum(points, points) / (len(points) * (len(points) - 1) or torch.nan) for points in (first, second)]
    return within[0] + within[1] - 2.0 * _sum(first, second) / (len(first) * len(second) or torch.nan)


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
    """

    def __init__(
        self,
        extractor: Extractor | None = None,
        subsets: Annotated[int, Field(ge=1, le=100_000)] = 100,
        subset_size: Annotated[int, Field(ge=2, le=100_000)] = 1000,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__(extractor, "kid")
        if subsets < 1 or subset_size < 2:
            raise ValueError(f"subsets={subsets}, subset_size={subset_size}: expected at least 1 and 2")
        self.subsets = subsets
        self.subset_size = subset_size
        self.seed = seed

    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """The three numbers, of features with shape (N, d)."""
        whole = kernel_distance(made, real)
        if len(made) <= self.subset_size:
            some = whole.expand(1)
        else:
            some = subset_distances(made, real, subsets=self.subsets, size=self.subset_size, seed=self.seed)
        return {
            self.name: whole,
            f"{self.name}_subsets": some.mean(),
            f"{self.name}_subsets_deviation": some.std(correction=0),
        }


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
