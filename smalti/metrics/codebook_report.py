"""What each codebook is used for: how many codes, how evenly, and how steeply their frequencies fall."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smalti.metrics._codes import CodeMetric, entropy


def zipf_exponent(counts: Tensor) -> Tensor:
    """s of frequency ~ rank^-s: minus the slope of log frequency over log rank, by least squares over codes in use.

    0 if all are chosen equally often; words of a language have about 1 (Zipf, 1949). Not a number of fewer than two.

    Args:
        counts: int64 with shape (K,).

    Example:
        >>> round(zipf_exponent(torch.tensor([0, 4, 8])).item(), 6)
        1.0
    """
    used = counts[counts > 0].double().sort(descending=True).values
    if len(used) < 2:
        return torch.full((), torch.nan, dtype=torch.float64, device=counts.device)
    x = torch.arange(1, len(used) + 1, dtype=torch.float64, device=counts.device).log()
    x, y = x - x.mean(), used.log() - used.log().mean()
    return -(x * y).sum() / x.square().sum()


class CodebookReport(CodeMetric):
    """For each codebook usage, perplexity = 2^H and Zipf's exponent of its codes (Zipf, 1949; Shannon et al., 1948).

    Gives ``codebook_report/<codebook>/usage`` (share of K codes that were chosen), ``.../perplexity``,
    ``.../entropy`` H in bits, ``.../zipf`` and ``.../largest`` (share of the most frequent code). Tokens: (B, G, h, w).
    What codebooks say of each other is ``codebook_mutual_information``.
    """

    def summarize(self, counts: Mapping[str, Tensor], sizes: Mapping[str, int], images: Tensor) -> dict[str, Tensor]:
        """Five numbers from each codebook's counts."""
        found: dict[str, Tensor] = {}
        for name, of in counts.items():
            bits = entropy(of)
            numbers = {
                "usage": (of > 0).sum().double() / sizes[name],
                "perplexity": torch.exp2(bits),
                "entropy": bits,
                "zipf": zipf_exponent(of),
                "largest": of.max().double() / of.sum(),
            }
            found |= {f"codebook_report/{name}/{kind}": value for kind, value in numbers.items()}
        return found
