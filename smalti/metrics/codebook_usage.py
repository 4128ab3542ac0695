"""Codebook usage: the fraction of the codes that were chosen at all."""

from collections.abc import Mapping

from torch import Tensor

from smalti.metrics._codes import CodeMetric, named


def codebook_usage(counts: Tensor, size: int | None = None) -> Tensor:
    """Fraction of codes with a count, a scalar in [0, 1].

    Args:
        counts: with shape (K,), or of some of the codes, of which there are ``size``.
        size: K, if not all are in ``counts``.

    Example:
        >>> import torch
        >>> codebook_usage(torch.tensor([3, 0, 1, 0]))
        tensor(0.5000, dtype=torch.float64)
    """
    return (counts > 0).sum().double() / (size or len(counts))


class CodebookUsage(CodeMetric):
    """|{k: code k was chosen}| / K over the whole evaluation (reported so by Yu et al., arXiv:2110.04627).

    Gives ``codebook_usage/<codebook>``, and ``codebook_usage`` if there is one codebook. Tokens: (B, G, h, w).
    """

    higher_is_better = True

    def summarize(self, counts: Mapping[str, Tensor], sizes: Mapping[str, int], images: Tensor) -> dict[str, Tensor]:
        """The fraction for each codebook, from its counts with shape (K,)."""
        return named("codebook_usage", {name: codebook_usage(of, sizes[name]) for name, of in counts.items()})
