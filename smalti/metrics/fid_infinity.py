"""FID without its bias: what it would be with infinitely many images, from how it falls with their number."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.metrics._feature_metric import SetsMetric
from smalti.metrics._moments import add_rows, frechet_distance, moments_of, new_total

CHUNK = 1024


def frechet_at_infinity(real: Tensor, made: Tensor, *, sizes: int = 10, seed: int = 0) -> Tensor:
    """Intercept of the Frechet distance over 1 / n, a scalar in float64 (Chong & Forsyth, arXiv:1911.07023).

    The first n images of one random order are compared, the same of both sets, for ``sizes`` numbers n that end with
    all of them; the distance is about a + b / n, fitted by least squares. It may be below 0.

    Args:
        real: with shape (N, d).
        made: with shape (N, d), of the same images.
        sizes: number of subsets; of few images fewer. A single one gives its distance.
        seed: of the order.
    """
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(seed))
    numbers = subset_sizes(len(made), made.shape[1], sizes)
    totals = [new_total(made.shape[1]) for _ in range(2)]
    found, start = [], 0
    for number in numbers:
        for total, features in zip(totals, (real, made), strict=True):
            for first in range(start, number, CHUNK):
                add_rows(total, features[order[first : min(first + CHUNK, number)]])
        start = number
        found.append(frechet_distance(*map(moments_of, totals)))
    values = torch.stack(found)
    if len(numbers) == 1:
        return values[0]
    inverse = 1.0 / torch.tensor(numbers, dtype=torch.float64)
    off = inverse - inverse.mean()
    slope = (off * (values - values.mean())).sum() / off.square().sum()
    return values.mean() - slope * inverse.mean()


def subset_sizes(count: int, width: int, sizes: int) -> list[int]:
    """Different numbers of images, evenly up to ``count``: from a tenth, but enough for a full rank if half are.

    Example:
        >>> subset_sizes(50_000, 2048, 10)[:3], subset_sizes(3, 64, 10)
        ([5000, 10000, 15000], [2, 3])
    """
    least = max(min(max(count // 10, width + 1), count // 2), min(2, count))
    steps = [least + (count - least) * step / max(sizes - 1, 1) for step in range(sizes)]
    return sorted({round(step) for step in steps} | {count})


class FIDInfinity(SetsMetric):
    """FID of infinitely many images (B, C, H, W), extrapolated from subsets (Chong & Forsyth, arXiv:1911.07023).

    The bias of the FID is about proportional to 1 / N; this is the intercept over at least 8 sizes of subsets. With
    random weights it is ``fd_infinity_random_inception``, and with other networks called after them.

    Args:
        extractor: the network; None for :class:`smalti.extractors.inception_v3.InceptionV3`, pretrained.
        sizes: number of subsets; of fewer images as many as there can be.
        seed: of the order of the images.
    """

    aliases: ClassVar[tuple[str, ...]] = ("fd_infinity_",)

    def __init__(
        self,
        extractor: Extractor | None = None,
        sizes: Annotated[int, Field(ge=8, le=1000)] = 10,
        seed: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        super().__init__(extractor, "fid_infinity", "fd_infinity")
        if sizes < 8:
            raise ValueError(f"sizes={sizes}: expected at least 8")
        self.sizes = sizes
        self.seed = seed

    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """The intercept under its name, of features with shape (N, d)."""
        return {self.name: frechet_at_infinity(real, made, sizes=self.sizes, seed=self.seed)}
