"""What latents are like: their moments, how many directions they use, how far they are from a standard normal."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from smalti.metrics import Metric, Observation
from smalti.metrics._latent_moments import EXTRA, FOURTH, KL, THIRD, VARIANCE, sums_of

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator

NOISE = 1e-12  # a deviation by so much of the mean is rounding: the channel is constant
NAME = "latent_statistics"


def effective_rank(covariance: Tensor) -> Tensor:
    """exp of the entropy of the normalised eigenvalues of a covariance (C, C), a scalar (Roy & Vetterli, 2007).

    C of latents that use all channels alike, 1 of those that lie on a line, 0 of those that never change.

    Example:
        >>> [round(effective_rank(matrix).item(), 4) for matrix in (torch.eye(3), torch.ones(3, 3), torch.zeros(3, 3))]
        [3.0, 1.0, 0.0]
    """
    values: Tensor = torch.linalg.eigvalsh(covariance.double()).clamp_min(0.0)
    if not bool(values.sum() > 0):
        return values.new_zeros(())
    entropy: Tensor = torch.special.entr(values / values.sum()).sum()
    return entropy.exp()


class LatentStatistics(Metric):
    """Moments of latents (B, C, ...) by channel, and their effective rank (Roy et al., doi:10.5281/zenodo.40595).

    ``latent_statistics_mean``, ``_std`` are of all values together (1 / std is the scale that a generator of latents
    wants), ``_std_lowest`` and ``_std_highest`` of single channels, ``_skewness`` and excess ``_kurtosis`` the means
    over channels, ``_effective_rank`` is that of the channels' covariance, ``_constant`` counts channels that never
    change. ``latent_statistics_mean/<channel>`` and so on are those of each; a channel that never changes has no
    skewness or kurtosis. With a posterior, whose mode is the latent here, ``_std_sampled`` is the deviation of samples
    and ``_kl`` its divergence from N(0, 1) in nats of a value (arXiv:1312.6114). A tokenizer without a latent has none
    of it.
    """

    def create(self) -> "Accumulator":
        """An accumulator of moments, O(C^2) whatever the number of images."""
        from smalti.metrics._latent_accumulator import LatentSums

        return LatentSums(self.summarize)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Adds the latents of a batch, with shape (B, C, ...)."""
        latent, posterior = observation.bottleneck.latent, observation.bottleneck.posterior
        if not latent.is_floating_point() or latent.ndim < 2 or not latent.shape[1]:
            return
        if posterior is None:
            accumulator.update(sums_of(latent))
            return
        mean, logvar = posterior.mean.double(), posterior.logvar.double()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1.0 - logvar)
        accumulator.update(sums_of(posterior.mean, divergence, logvar.exp()))

    def summarize(self, sums: Tensor) -> dict[str, Tensor]:
        """Named numbers of sums with shape (C + 5, C + 1); none of (0, 0)."""
        if not sums.numel() or not sums[0, 0]:
            return {}
        count, mean = sums[0, 0], sums[0, 1:]
        covariance = sums[1:-EXTRA, 1:] / count
        variance = covariance.diagonal()
        changing = variance.sqrt() > NOISE * mean.abs()
        std = torch.where(changing, variance.sqrt(), 0.0)
        skewness = sums[THIRD, 1:] / count / variance.pow(1.5)
        kurtosis = sums[FOURTH, 1:] / count / variance.square() - 3.0
        spread = (mean - mean.mean()).square()
        found = {"mean": mean.mean(), "std": (std.square() + spread).mean().sqrt()}
        found |= {"std_lowest": std.min(), "std_highest": std.max()}
        if bool(changing.any()):
            found |= {"skewness": skewness[changing].mean(), "kurtosis": kurtosis[changing].mean()}
        rank = effective_rank(torch.where(changing[:, None] & changing, covariance, 0.0))
        found |= {"effective_rank": rank, "constant": (~changing).sum().double()}
        if bool(sums[VARIANCE, 0]):
            own = sums[VARIANCE, 1:] / sums[VARIANCE, 0]
            found["std_sampled"] = (std.square() + own + spread).mean().sqrt()
            found["kl"] = (sums[KL, 1:] / sums[VARIANCE, 0]).mean()
        for channel, changes in enumerate(changing.tolist()):
            found |= {f"mean/{channel}": mean[channel], f"std/{channel}": std[channel]}
            if changes:
                found |= {f"skewness/{channel}": skewness[channel], f"kurtosis/{channel}": kurtosis[channel]}
        return {f"{NAME}_{name}": value for name, value in found.items()}

    def warnings(self, accumulator: Any) -> tuple[str, ...]:
        """That nothing has a latent, or how many channels never change."""
        sums = accumulator.whole
        if sums is None or not sums.numel():
            return ("it has no latent",)
        constant = int(self.summarize(sums)[f"{NAME}_constant"])
        return (f"{constant} of {sums.shape[1] - 1} channels never change",) if constant else ()
