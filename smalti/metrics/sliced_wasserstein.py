"""Sliced Wasserstein distance: Wasserstein-1 along many random directions, where sorting solves it."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.data import ImageSource
from smalti.data.transforms import Transform
from smalti.metrics._set_metric import SetMetric, images_of
from smalti.metrics.wasserstein import wasserstein_1d


def sliced_wasserstein(first: Tensor, second: Tensor, *, projections: int = 256, seed: int = 0) -> Tensor:
    """Mean of the one-dimensional distances along ``projections`` random unit directions, a scalar in float64.

    Args:
        first: N points with shape (N, ...).
        second: N points, same shape.
        projections: number of directions.
        seed: of the directions; equal seeds, equal directions.

    Raises:
        ValueError: for unequal shapes, or without a point.

    Example:
        >>> points = torch.zeros(5, 2)
        >>> sliced_wasserstein(points, points)
        tensor(0., dtype=torch.float64)
    """
    if first.shape != second.shape or not len(first):
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"samples with shapes {shapes}: expected equal shapes (N, ...), N at least 1")
    x, y = (points.detach().double().reshape(len(points), -1) for points in (first, second))
    random = torch.Generator().manual_seed(seed)
    directions = torch.randn(x.shape[1], projections, generator=random, dtype=torch.float64).to(x.device)
    directions = directions / torch.linalg.vector_norm(directions, dim=0)
    return wasserstein_1d(x @ directions, y @ directions)


class SlicedWasserstein(SetMetric):
    """Sliced Wasserstein-1 distance of made from real images (B, C, H, W) (cf. Bonneel et al., J. Math. Imaging 2015).

    Images are vectors of C H W values in [-1, 1]. With a ``reference``, ``sliced_wasserstein_floor`` is the distance
    between other real images and these: what a perfect generator would reach, since two finite samples differ.

    Args:
        projections: number of random directions, always the same ones.
        reference: real images that are not the ones measured on, usually the training data; None: no floor.
        transform: how they are cropped.
    """

    def __init__(
        self,
        projections: Annotated[int, Field(ge=1, le=65_536)] = 256,
        reference: ImageSource | None = None,
        transform: Transform | None = None,
    ) -> None:
        if projections < 1:
            raise ValueError(f"projections={projections!r}: expected a whole number of at least 1")
        self.projections = projections
        self.reference = reference
        self.transform = transform or Transform()

    def summarize(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """The distance of made from real images, each with shape (N, C, H, W), and the floor."""
        found = {"sliced_wasserstein": sliced_wasserstein(made, real, projections=self.projections)}
        if self.reference is not None:
            found["sliced_wasserstein_floor"] = self._floor(real, images_of(self.reference, self.transform)[0])
        return found

    def _floor(self, real: Tensor, images: Tensor) -> Tensor:
        """Mean distance of ``real`` (N, C, H, W) from disjoint parts of other real ``images``, N each."""
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        size = min(len(real), len(images))
        parts = [order[start : start + size] for start in range(0, len(images) - size + 1, size)]
        distances = [
            sliced_wasserstein(images[part].to(real), real[:size], projections=self.projections) for part in parts
        ]
        return torch.stack(distances).mean()
