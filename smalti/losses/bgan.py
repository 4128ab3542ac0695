"""Boundary seeking GAN: the generator wants its images where the discriminator cannot decide, at logit 0.

PyTorch-GAN takes log(p) - log(1 - p) of probabilities p, infinite where p rounds to 0 or 1; in logits that is f itself.
"""

from torch import Tensor

from smalti.losses import Loss
from smalti.losses.vanilla import vanilla_discriminator


def bgan_generator(logits_fake: Tensor) -> Tensor:
    """mean(f^2) / 2 of logits f with shape (B, ...).

    Example:
        >>> import torch
        >>> bgan_generator(torch.tensor([0.0, 2.0]))
        tensor(1.)
    """
    return 0.5 * logits_fake.square().mean()


def bgan_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """mean(softplus(-r)) + mean(softplus(f)) of logits r and f with shape (B, ...)."""
    return vanilla_discriminator(logits_real, logits_fake)


class BGANGenerator(Loss):
    """Generator loss, L = mean(f^2) / 2 of logits f with shape (B, ...) (Hjelm et al., arXiv:1702.08431)."""

    phase = "generator"

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return bgan_generator(logits_fake)


class BGANDiscriminator(Loss):
    """Discriminator loss, L = mean(softplus(-r)) + mean(softplus(f)), logits (B, ...) (arXiv:1702.08431).

    PyTorch-GAN has half of it: ``weight: 0.5``.
    """

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return bgan_discriminator(logits_real, logits_fake)
