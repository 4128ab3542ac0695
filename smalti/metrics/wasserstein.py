"""Wasserstein-1 distance of two samples: the least work that turns one heap of points into the other.

Between N made and N real images (N, C, H, W) it is a minimum over pairings; in one dimension sorting finds it. Theory
and what it means for GANs stand in ``docs/wgan.md``.
"""

import torch
from torch import Tensor

from smalti.metrics._assignment import assignment
from smalti.metrics._set_metric import SetMetric


def wasserstein(first: Tensor, second: Tensor) -> Tensor:
    """min over pairings p of mean_i ||x_i - y_p(i)||, a scalar in float64.

    Args:
        first: N points x with shape (N, ...), or N numbers with shape (N,).
        second: N points y, same shape.

    Raises:
        ValueError: for unequal shapes, or without a point.

    Example:
        >>> wasserstein(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 2.0]))
        tensor(2., dtype=torch.float64)
    """
    if first.shape != second.shape or not len(first):
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise ValueError(f"samples with shapes {shapes}: expected equal shapes (N, ...), N at least 1")
    x, y = (points.detach().double().reshape(len(points), -1) for points in (first, second))
    if x.shape[1] == 1:
        return wasserstein_1d(x, y)
    cost = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    columns = torch.from_numpy(assignment(cost.cpu().numpy())).to(cost.device)
    return cost.gather(1, columns[:, None]).mean()


def wasserstein_1d(first: Tensor, second: Tensor) -> Tensor:
    """Mean distance of equal ranks, a scalar: columns of (N, P) are P samples of numbers, averaged."""
    return (first.sort(dim=0).values - second.sort(dim=0).values).abs().mean()


class Wasserstein(SetMetric):
    """Exact Wasserstein-1 distance between made and real images (B, C, H, W) as vectors (Villani, ISBN 9783540710493).

    Euclidean distance of all C H W values in [-1, 1], over the cheapest pairing of N made with N real images, which
    takes O(N^3): at most ``limit`` of each are compared. Peyre et al. (arXiv:1803.00567) is the practical book.

    Args:
        limit: the first so many images are compared.
    """

    def __init__(self, limit: int = 1000) -> None:
        if limit < 1:
            raise ValueError(f"limit={limit!r}: expected a whole number of at least 1")
        self.limit = limit

    def summarize(self, real: Tensor, made: Tensor) -> dict[str, Tensor]:
        """``wasserstein`` of real and made images, each with shape (N, C, H, W)."""
        return {"wasserstein": wasserstein(made[: self.limit], real[: self.limit])}
