"""k-means: centres that start a codebook where the data is."""

import torch
from torch import Tensor

from smalti.nn.code_search import nearest_code
from smalti.nn.distributed import all_reduce_sum, broadcast


@torch.no_grad()
def cluster_sums(points: Tensor, indices: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Number and sum of the points of each cluster over all ranks.

    Args:
        points: with shape (N, d).
        indices: cluster of each point, int64 with shape (N,).
        clusters: how many there are, K.

    Returns:
        counts, int64 with shape (K,), and sums with shape (K, d).

    Example:
        >>> cluster_sums(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1]), 2)
        (tensor([0, 2]), tensor([[0.],
                [3.]]))
    """
    counts = torch.zeros(clusters, dtype=torch.int64, device=points.device)
    counts.index_add_(0, indices, torch.ones_like(indices))
    sums = points.new_zeros(clusters, points.shape[1]).index_add_(0, indices, points)
    return all_reduce_sum(counts), all_reduce_sum(sums)


@torch.no_grad()
def kmeans(points: Tensor, clusters: int, *, iterations: int = 10, seed: int = 0) -> Tensor:
    """Lloyd's algorithm (IEEE Trans. Inf. Theory 28, 1982) from randomly drawn points.

    The centres are equal on all ranks: the first ones are rank 0's, each step uses the points of all ranks. They depend
    on the points and ``seed`` only. An empty cluster keeps its centre.

    Args:
        points: this rank's points with shape (N, d).
        clusters: number of centres K; with K > N some start equal.
        iterations: steps.
        seed: of the draw.

    Returns:
        centres with shape (K, d).
    """
    generator = torch.Generator().manual_seed(seed)
    draws = -(-clusters // len(points))
    order = torch.cat([torch.randperm(len(points), generator=generator) for _ in range(draws)])[:clusters]
    centres = broadcast(points[order.to(points.device)])
    for _ in range(iterations):
        counts, sums = cluster_sums(points, nearest_code(points, centres), clusters)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres
