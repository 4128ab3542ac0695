"""Relativistic, paired: the discriminator says by how much each real image looks more real than a made one.

With R1 and R2 beside it this is R3GAN's loss, which has no modes to collapse to.
"""

from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss


def relativistic_generator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """mean(softplus(-(f - r))) of logits r and f with equal shapes (B, ...).

    Raises:
        ValueError: for unequal shapes.

    Example:
        >>> import torch
        >>> relativistic_generator(torch.zeros(2), torch.zeros(2))
        tensor(0.6931)
    """
    if logits_real.shape != logits_fake.shape:
        shapes = f"logits_real have shape {tuple(logits_real.shape)}, logits_fake {tuple(logits_fake.shape)}"
        raise ValueError(f"{shapes}: must be equal to be paired")
    return F.softplus(logits_real - logits_fake).mean()


def relativistic_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """mean(softplus(-(r - f))) of logits r and f with equal shapes (B, ...).

    Raises:
        ValueError: for unequal shapes.

    Example:
        >>> import torch
        >>> relativistic_discriminator(torch.zeros(2), torch.zeros(2))
        tensor(0.6931)
    """
    return relativistic_generator(logits_fake, logits_real)


class RelativisticGenerator(Loss):
    """Generator loss, L = mean(softplus(-(f - r))), logits (B, ...) (RpGAN, Jolicoeur-Martineau, arXiv:1807.00734).

    It asks for the logits of real images too: one more pass of the discriminator.
    """

    phase = "generator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with equal shapes (B, ...)."""
        return relativistic_generator(logits_real, logits_fake)


class RelativisticDiscriminator(Loss):
    """Discriminator loss, L = mean(softplus(-(r - f))), logits (B, ...) (arXiv:1807.00734, R3GAN arXiv:2501.05441).

    R3GAN adds ``r1`` and ``r2`` at ``weight: gamma / 2``.
    """

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with equal shapes (B, ...)."""
        return relativistic_discriminator(logits_real, logits_fake)
