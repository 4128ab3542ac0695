"""Approximate R2: how far logits of generated images move under a little noise; see ``approximate_r1``."""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._penalty import Critic, ResponsePenalty
from smalti.losses.approximate_r1 import approximate_r1


def approximate_r2(
    discriminator: Critic,
    fake: Tensor,
    noise: Tensor | None = None,
    *,
    sigma: float = 0.01,
    reduction: Reduction = "mean",
) -> Tensor:
    """mean(((D(x + sigma n) - D(x)) / sigma)^2) at fake images x (B, ...), normal noise n drawn unless it is given.

    Example:
        >>> import torch
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=3.0 * x[:, :1])
        >>> approximate_r2(critic, torch.zeros(2, 5), torch.ones(2, 5), sigma=0.5)
        tensor(9.)
    """
    return approximate_r1(discriminator, fake, noise, sigma=sigma, reduction=reduction)


class ApproximateR2(ResponsePenalty):
    """mean(((D(x + sigma n) - D(x)) / sigma)^2) at generated images x (B, ...) (Lin et al., arXiv:2501.08316).

    For the discriminator's phase, at ``weight: gamma / 2``, as ``r2``.

    Args:
        sigma: size of the step n is multiplied by, in units of the images: 0.01 to 0.1.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def forward(self, discriminator: Critic, fake: Tensor, noise: Tensor | None = None) -> Tensor:
        """The penalty at ``fake`` with shape (B, ...); ``noise`` of the same shape is drawn if it is not given."""
        return approximate_r2(discriminator, fake, noise, sigma=self.sigma, reduction=self.reduction)
