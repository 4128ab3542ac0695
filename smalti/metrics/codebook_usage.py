"""Codebook usage: the fraction of the codes that were chosen at all."""

from collections.abc import Mapping

from torch import Tensor

from smalti.metrics._codes import CodeMetric, named


def codebook_usage(counts: Tensor) -> Tensor:
    """Fraction of codes with a count, a scalar in [0, 1], of ``counts`` with shape (K,).

    Example:
        >>> import torch
        >>> codebook_usage(torch.tensor([3, 0, 1, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    return (counts > 0).double().mean()


class CodebookUsage(CodeMetric):
    """|{k: code k was chosen}| / K over the whole evaluation (reported so by Yu et al., arXiv:2110.04627).

    Gives ``codebook_usage/<codebook>``, and ``codebook_usage`` if there is one codebook. Tokens: (B, G, h, w).
    """

    higher_is_better = True

    def summarize(self, counts: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        """The fraction for each codebook, from its counts with shape (K,)."""
        return named("codebook_usage", {name: codebook_usage(of) for name, of in counts.items()})
