"""k-means: centres that start a codebook where the data is."""

import torch
from torch import Tensor

from smalti.nn.code_search import nearest_code
from smalti.nn.distributed import all_gather, all_reduce_sum, broadcast, rank


@torch.no_grad()
def cluster_sums(points: Tensor, indices: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Number and sum of the points of each cluster over all ranks; a point of no cluster does not count.

    Args:
        points: with shape (N, d).
        indices: cluster of each point, int64 with shape (N,), negative for none.
        clusters: how many there are, K.

    Returns:
        counts, int64 with shape (K,), and sums with shape (K, d).

    Example:
        >>> cluster_sums(torch.tensor([[1.0], [2.0]]), torch.tensor([1, 1]), 2)
        (tensor([0, 2]), tensor([[0.],
                [3.]]))
    """
    counts = torch.zeros(clusters, dtype=torch.int64, device=points.device)
    belongs, indices = indices >= 0, indices.clamp(min=0)
    counts.index_add_(0, indices, belongs.to(counts.dtype))
    points = torch.where(belongs[:, None], points, 0.0)
    sums = points.new_zeros(clusters, points.shape[1]).index_add_(0, indices, points)
    return all_reduce_sum(counts), all_reduce_sum(sums)


@torch.no_grad()
def kmeans(points: Tensor, clusters: int, *, iterations: int = 10, seed: int = 0) -> Tensor | None:
    """Lloyd's algorithm (IEEE Trans. Inf. Theory 28, 1982) from randomly drawn points.

    Several ranks find together what one would with the points of rank 0, 1, ... in a row: the first centres are drawn
    from the points of all ranks, and so is each mean. The centres are equal on all ranks and depend on the points and
    ``seed`` only. An empty cluster keeps its centre; points that are not finite do not count.

    Args:
        points: this rank's points with shape (N, d); ranks may have different numbers of them, even none.
        clusters: number of centres K; with K > N some start equal.
        iterations: steps.
        seed: of the draw.

    Returns:
        centres with shape (K, d), or None if no rank has a finite point.
    """
    points = points[torch.isfinite(points).all(dim=1)]
    counts = all_gather(torch.tensor([len(points)], device=points.device)).tolist()
    total, before = sum(counts), sum(counts[: rank()])
    if not total:
        return None
    generator = torch.Generator().manual_seed(seed)
    draws = -(-clusters // total)
    order = torch.cat([torch.randperm(total, generator=generator) for _ in range(draws)])[:clusters] - before
    ours = (order >= 0) & (order < len(points))
    centres = points.new_zeros(clusters, points.shape[1])
    centres[ours.to(points.device)] = points[order[ours].to(points.device)]
    centres = all_reduce_sum(centres)
    for _ in range(iterations):
        sizes, sums = cluster_sums(points, nearest_code(points, centres), clusters)
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp(min=1)[:, None], centres)
    return broadcast(centres)
