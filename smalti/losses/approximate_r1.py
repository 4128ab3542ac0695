"""Approximate R1: how far logits of real images move under a little noise; no second derivative is needed.

It works where double backward does not: compiled critics, fused attention, sharded parameters. For small noise its
expectation is R1's. Both judgements must see equal conditions: the same augmentation, and no dropout.
"""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._penalty import Critic, ResponsePenalty, response_penalty


def approximate_r1(
    discriminator: Critic,
    real: Tensor,
    noise: Tensor | None = None,
    *,
    sigma: float = 0.01,
    reduction: Reduction = "mean",
) -> Tensor:
    """mean(((D(x + sigma n) - D(x)) / sigma)^2) at real images x, the logits of all patches added up.

    Args:
        discriminator: images -> ``DiscriminatorOutput``.
        real: with shape (B, ...).
        noise: n, same shape; standard normal noise is drawn if it is not given.
        sigma: size of the step, above 0.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).

    Raises:
        ValueError: for a step that is not above 0, or an unknown reduction.

    Example:
        >>> import torch
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=3.0 * x[:, :1])
        >>> approximate_r1(critic, torch.zeros(2, 5), torch.ones(2, 5), sigma=0.5)
        tensor(9.)
    """
    return response_penalty(discriminator, real, noise, sigma=sigma, reduction=reduction)


class ApproximateR1(ResponsePenalty):
    """mean(((D(x + sigma n) - D(x)) / sigma)^2) at real images x (B, ...) (Lin et al., arXiv:2501.08316).

    For the discriminator's phase, at ``weight: gamma / 2``, as ``r1``.

    Args:
        sigma: size of the step n is multiplied by, in units of the images: 0.01 to 0.1.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def forward(self, discriminator: Critic, real: Tensor, noise: Tensor | None = None) -> Tensor:
        """The penalty at ``real`` with shape (B, ...); ``noise`` of the same shape is drawn if it is not given."""
        return approximate_r1(discriminator, real, noise, sigma=self.sigma, reduction=self.reduction)
