"""Saturating: the minimax game as first written; its generator hardly learns while the discriminator is sure.

For teaching and comparison; ``non_saturating`` is the form that is used.
"""

from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses.vanilla import vanilla_discriminator


def saturating_generator(logits_fake: Tensor) -> Tensor:
    """mean(log(1 - sigmoid(f))) = -mean(softplus(f)) of logits f with shape (B, ...).

    Example:
        >>> import torch
        >>> saturating_generator(torch.zeros(2))
        tensor(-0.6931)
    """
    return -F.softplus(logits_fake).mean()


def saturating_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """mean(softplus(-r)) + mean(softplus(f)) of logits r and f with shape (B, ...)."""
    return vanilla_discriminator(logits_real, logits_fake)


class SaturatingGenerator(Loss):
    """Generator loss, L = -mean(softplus(f)) of logits f with shape (B, ...) (Goodfellow et al., arXiv:1406.2661)."""

    phase = "generator"

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return saturating_generator(logits_fake)


class SaturatingDiscriminator(Loss):
    """Discriminator loss, L = mean(softplus(-r)) + mean(softplus(f)), logits (B, ...) (arXiv:1406.2661)."""

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return saturating_discriminator(logits_real, logits_fake)
