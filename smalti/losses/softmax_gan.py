"""Softmax GAN: one softmax over the whole batch; all its mass is to lie on real images, or evenly on all.

The paper's critic is an energy, low for real images. Here, as everywhere, high logits mean real: they are its negative.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from smalti.losses import Loss


def softmax_gan_generator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """ln(Z) - mean over all of s, Z = sum(exp(s)), s the logits r and f with shape (B, ...) together.

    Example:
        >>> softmax_gan_generator(torch.zeros(2), torch.zeros(2))
        tensor(1.3863)
    """
    logits = torch.cat([logits_real.flatten(), logits_fake.flatten()])
    return logits.logsumexp(dim=0) - logits.mean()


def softmax_gan_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """ln(Z) - mean(r), Z = sum(exp(r)) + sum(exp(f)), logits r and f with shape (B, ...).

    Example:
        >>> softmax_gan_discriminator(torch.zeros(2), torch.zeros(2))
        tensor(1.3863)
    """
    logits = torch.cat([logits_real.flatten(), logits_fake.flatten()])
    return logits.logsumexp(dim=0) - logits_real.mean()


class SoftmaxGANGenerator(Loss):
    """Generator loss, L = ln(Z) - mean(s) over all logits s (B, ...), Z = sum(exp(s)) (Lin, arXiv:1704.06191).

    It asks for the logits of real images too: one more pass of the discriminator.
    """

    phase = "generator"
    batch_statistics: ClassVar[Mapping[str, str]] = {"": "one softmax over all logits"}

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return softmax_gan_generator(logits_real, logits_fake)


class SoftmaxGANDiscriminator(Loss):
    """Discriminator loss, L = ln(Z) - mean(r), Z = sum(exp(s)) over all logits (B, ...) (Lin, arXiv:1704.06191)."""

    phase = "discriminator"
    batch_statistics: ClassVar[Mapping[str, str]] = {"": "one softmax over all logits"}

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return softmax_gan_discriminator(logits_real, logits_fake)
