"""Density and coverage: precision and recall that single outliers cannot move."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.metrics._feature_metric import SetsMetric
from smalti.metrics._jackknife import Groups, check_groups, shares_of
from smalti.metrics._neighbours import inside, one_if_finite, radii


def density_coverage(real: Tensor, made: Tensor, *, k: int = 5) -> tuple[Tensor, Tensor]:
    """Real balls that hold a made feature, over k, and share of real balls that hold any; two scalars in float64.

    A ball reaches from a real feature to its k-th neighbour among the real ones, itself not counted, and does not hold
    its border (Naeem et al., arXiv:2002.09797, and their code): of equal sets without repetition both are 1.

    Args:
        real: with shape (N, d).
        made: with shape (M, d).
        k: which neighbour; at most N - 1.

    Example:
        >>> import torch
        >>> density_coverage(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([[0.5], [0.6]]), k=1)
        (tensor(2., dtype=torch.float64), tensor(0.6667, dtype=torch.float64))
    """
    density, coverage = covered(real, made, k=k)
    return density.mean(), coverage.mean()


def covered(real: Tensor, made: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Real balls around each made feature over k, and 1 of each real ball that holds any, else 0, (M,) and (N,)."""
    balls, held = inside(made, real, radii(real, k), closed=False)
    known = one_if_finite(real, made)
    return known * balls.double() / max(min(k, len(real) - 1), 1), known * (held > 0).double()


class DensityCoverage(SetsMetric):
    """Density and coverage of images (B, C, H, W) in Inception-v3's features (Naeem et al., arXiv:2002.09797).

    ``density_coverage_density`` is how many of the real images have a made one nearer than their k-th neighbour, over
    k, and may be above 1; ``density_coverage_coverage`` is the share of real images that have any so near. With another
    network they are called after that.

    Args:
        extractor: the network; None for :class:`smalti.extractors.inception_v3.InceptionV3`, pretrained.
        k: which neighbour.
        groups: of images, left out in turn for ``_low`` and ``_high``, where the value lies with 95 %; 0:
            neither. The balls stay those of all images.
    """

    higher_is_better = True

    def __init__(
        self,
        extractor: Extractor | None = None,
        k: Annotated[int, Field(ge=1, le=10_000)] = 5,
        groups: Groups = 0,
    ) -> None:
        super().__init__(extractor, "density_coverage")
        self.groups = check_groups(groups)
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        self.k = k

    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """Both numbers, of features with shape (N, d)."""
        found = covered(real, made, k=self.k)
        return shares_of([f"{self.name}_density", f"{self.name}_coverage"], found, self.groups)
