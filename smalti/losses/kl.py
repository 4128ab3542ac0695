"""KL divergence of the posterior over latents from the standard normal."""

from torch import Tensor

from smalti.losses import Loss, Reduction
from smalti.losses._reduction import check_choice
from smalti.outputs import DiagonalGaussian


def kl(posterior: DiagonalGaussian, *, reduction: Reduction = "mean") -> Tensor:
    """KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - log s^2) / 2 in nats (Kingma & Welling, arXiv:1312.6114).

    =============  =====================================================================================
    ``mean``       mean over latent elements: its scale depends on no size
    ``batch_sum``  sum over each sample's elements, mean over samples: what latent-diffusion weighs 1e-6
    ``sum``        sum over everything
    ``none``       one value per sample, summed over its elements, with shape (B,)
    =============  =====================================================================================

    Args:
        posterior: over latents with shape (B, C, h, w).
        reduction: as above.

    Example:
        >>> import torch
        >>> posterior = DiagonalGaussian(torch.full((2, 4, 1, 1), 2.0), torch.zeros(2, 4, 1, 1))
        >>> kl(posterior).item(), kl(posterior, reduction="batch_sum").item()
        (2.0, 8.0)
    """
    check_choice("reduction", reduction, Reduction)
    per_sample = posterior.kl()
    if reduction == "none":
        return per_sample
    if reduction == "batch_sum":
        return per_sample.mean()
    total = per_sample.sum()
    return total if reduction == "sum" else total / posterior.mean.numel()


class KL(Loss):
    """:func:`kl` of the bottleneck's posterior (Kingma & Welling, arXiv:1312.6114).

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("reduction", reduction, Reduction)
        self.reduction: Reduction = reduction

    def forward(self, posterior: DiagonalGaussian) -> Tensor:
        """A scalar, or (B,) unreduced, of a posterior with mean and logvar of shape (B, C, h, w)."""
        return kl(posterior, reduction=self.reduction)
