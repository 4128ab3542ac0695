"""Drawing a code from its scores: temperature, the filters top-k and top-p, and one uniform number for each draw.

A draw is a function of the scores and of one number, which says where in the cumulative distribution it falls. That
number belongs to an image, a position and a codebook: so an image is the same however many are drawn beside it, on any
device.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_BELOW_ONE = 1.0 - 2.0**-40  # a draw never falls on the end of the distribution


def filtered(scores: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Scores (..., K), -inf where a code is not to be drawn: first those beyond the ``top_k``, then beyond ``top_p``.

    Args:
        scores: before the softmax.
        top_k: a code stays if it is as good as the k-th best; 0: all stay.
        top_p: a code stays while those better than it have a probability of at most ``top_p`` (Holtzman et al.,
            arXiv:1904.09751); the best always does.

    Example:
        >>> filtered(torch.tensor([3.0, 1.0, 2.0]), top_k=2)
        tensor([3., -inf, 2.])
        >>> filtered(torch.tensor([3.0, 1.0, 2.0]), top_p=0.5)
        tensor([3., -inf, -inf])
    """
    if 0 < top_k < scores.shape[-1]:
        least = scores.topk(top_k, dim=-1).values[..., -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    if top_p < 1.0:
        ordered, places = scores.sort(dim=-1, descending=True)
        better = ordered.softmax(dim=-1).cumsum(dim=-1).roll(1, dims=-1)
        better[..., 0] = 0.0
        scores = scores.masked_fill((better > top_p).scatter(-1, places, better > top_p), float("-inf"))
    return scores


def draw(scores: Tensor, uniform: Tensor) -> Tensor:
    """Codes, int64 with shape (B,), drawn from the softmax of ``scores``.

    Args:
        scores: with shape (B, K), float32 or float64; -inf: never.
        uniform: in [0, 1), float64 with shape (B,): where in the cumulative distribution each draw falls.

    Example:
        >>> draw(torch.zeros(3, 4), torch.tensor([0.0, 0.3, 0.99], dtype=torch.float64))
        tensor([0, 1, 3])
    """
    cumulative = scores.softmax(dim=-1).cumsum(dim=-1, dtype=uniform.dtype)
    place = (uniform * cumulative[:, -1])[:, None]
    return torch.searchsorted(cumulative, place, right=True)[:, 0]


def uniforms(seeds: Sequence[int], positions: int, codebooks: int, device: torch.device) -> Tensor:
    """A number in [0, 1) for each image, position and codebook, float64 with shape (B, positions, codebooks).

    Args:
        seeds: one an image; the numbers of an image depend on its own only.
        positions: of the grid.
        codebooks: their number.
        device: of the result; the numbers are the same on all.

    Example:
        >>> one, two = uniforms([7], 3, 2, torch.device("cpu")), uniforms([5, 7], 3, 2, torch.device("cpu"))
        >>> torch.equal(one[0], two[1])
        True
    """
    made = [
        torch.rand(positions, codebooks, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for seed in seeds
    ]
    return (torch.stack(made) * _BELOW_ONE).to(device)
