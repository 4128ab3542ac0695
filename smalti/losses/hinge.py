"""Hinge: the discriminator stops pushing once a margin of 1 is reached; the generator's side is linear."""

from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss


def hinge_generator(logits_fake: Tensor) -> Tensor:
    """-mean(f) of logits f with shape (B, ...).

    Example:
        >>> import torch
        >>> hinge_generator(torch.tensor([0.5, 1.5]))
        tensor(-1.)
    """
    return -logits_fake.mean()


def hinge_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """mean(relu(1 - r)) + mean(relu(1 + f)) of logits r and f with shape (B, ...).

    Example:
        >>> import torch
        >>> hinge_discriminator(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.0]))
        tensor(1.)
    """
    return F.relu(1.0 - logits_real).mean() + F.relu(1.0 + logits_fake).mean()


class HingeGenerator(Loss):
    """Generator loss, L = -mean(f) of logits f with shape (B, ...) (Lim & Ye, arXiv:1705.02894).

    latent-diffusion and taming pair this linear form with their ``vanilla`` discriminator too.
    """

    phase = "generator"

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return hinge_generator(logits_fake)


class HingeDiscriminator(Loss):
    """Discriminator loss, L = mean(relu(1 - r)) + mean(relu(1 + f)), logits (B, ...) (Lim & Ye, arXiv:1705.02894).

    At logits 0 the loss is 2. The originals (taming, latent-diffusion, FQGAN) have half of it: ``weight: 0.5``.
    """

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return hinge_discriminator(logits_real, logits_fake)
