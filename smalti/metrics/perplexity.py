"""Perplexity: the number of equally likely codes that would be as hard to guess as the ones chosen."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smalti.metrics._codes import CodeMetric, entropy, named


def perplexity(counts: Tensor) -> Tensor:
    """2 to the power of the entropy in bits, a scalar in [1, K], of ``counts`` with shape (K,).

    Example:
        >>> perplexity(torch.tensor([5, 5, 0, 0]))
        tensor(2., dtype=torch.float64)
    """
    return torch.exp2(entropy(counts))


class Perplexity(CodeMetric):
    """exp(-sum_k p_k log p_k) of the frequencies p of the codes over the whole evaluation (arXiv:1711.00937).

    (van den Oord et al.) Gives ``perplexity/<codebook>``, and ``perplexity`` if there is one codebook. Tokens:
    (B, G, h, w).
    """

    higher_is_better = True

    def summarize(self, counts: Mapping[str, Tensor], sizes: Mapping[str, int], images: Tensor) -> dict[str, Tensor]:
        """The perplexity of each codebook, from its counts with shape (K,)."""
        return named("perplexity", {name: perplexity(of) for name, of in counts.items()})
