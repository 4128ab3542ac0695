"""What each codebook is used for: how many codes, how evenly, and how steeply their frequencies fall."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.losses.psnr import psnr
from smalti.metrics import Metric, Observation
from smalti.metrics._codes import entropy
from smalti.metrics.codebook_mutual_information import chance, mutual_information

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator

    from smalti.metrics._report_counts import Counted


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


class CodebookReport(Metric):
    """For each codebook usage, perplexity = 2^H and Zipf's exponent of its codes (Zipf, 1949; Shannon et al., 1948).

    Gives ``codebook_report/<codebook>/usage`` (share of K codes that were chosen), ``.../perplexity``,
    ``.../entropy`` H in bits, ``.../zipf`` and ``.../largest`` (share of the most frequent code). Of several codebooks
    also ``codebook_report/<a>-<b>/mutual_information`` in bits, ``.../mutual_information_chance`` (what as many
    tokens of codebooks that share nothing show, as ``codebook_mutual_information`` says), and, of a tokenizer that can
    decode them apart, ``.../psnr_at_mean``: the mean PSNR of images (B, C, H, W) with this codebook's part of the
    latent at its mean code, in the convention of ``psnr``; it takes one more decoding a codebook. Tokens: (B, G, h, w).
    """

    def create(self) -> "Accumulator":
        """An accumulator of counts; ``compute()`` gives named numbers, none for a model without codebooks."""
        from smalti.metrics._report_counts import ReportCounts

        return ReportCounts(self.summarize)

    def begin(self, accumulator: "Accumulator", codebook_sizes: Mapping[str, int]) -> None:
        """Declares the index planes: name -> number of codes K."""
        accumulator.declare(codebook_sizes)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Counts the tokens of a batch (B, G, h, w), and measures images (B, C, H, W) without each codebook."""
        decibels = {name: psnr(make(), observation.target) for name, make in observation.ablations.items()}
        accumulator.update(observation.bottleneck.indices, observation.codebook_sizes, decibels)

    def summarize(self, counted: "Counted") -> dict[str, Tensor]:
        """Named numbers of each codebook and of each pair."""
        found: dict[str, Tensor] = {}
        for name, of in counted.counts.items():
            numbers = _of_codes(of, counted.sizes[name])
            found |= {f"codebook_report/{name}/{kind}": value for kind, value in numbers.items()}
        for name, decibels in counted.decibels.items():
            found[f"codebook_report/{name}/psnr_at_mean"] = decibels
        for name, pairs in counted.pairs.items():
            found[f"codebook_report/{name}/mutual_information"] = mutual_information(*pairs)
            found[f"codebook_report/{name}/mutual_information_chance"] = chance(*pairs)
        return found


def _of_codes(counts: Tensor, size: int) -> dict[str, Tensor]:
    """Five numbers of how often codes, of ``size``, were chosen: int64 with shape (K,), or (N,) of those that were."""
    bits = entropy(counts)
    return {
        "usage": (counts > 0).sum().double() / size,
        "perplexity": torch.exp2(bits),
        "entropy": bits,
        "zipf": zipf_exponent(counts),
        "largest": counts.max().double() / counts.sum(),
    }
