"""Vanilla: the discriminator as a classifier by logistic regression, with labels that may be smoothed."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses._reduction import check_label

Label = Annotated[float, Field(ge=0.0, le=1.0)]


def vanilla_generator(logits_fake: Tensor, *, real_label: float = 1.0) -> Tensor:
    """mean(softplus(f) - real_label f) of logits f with shape (B, ...): fakes are to be taken for real.

    Example:
        >>> import torch
        >>> vanilla_generator(torch.zeros(2))
        tensor(0.6931)
    """
    return _cross_entropy(logits_fake, real_label)


def vanilla_discriminator(
    logits_real: Tensor, logits_fake: Tensor, *, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    """mean(softplus(r) - real_label r) + mean(softplus(f) - fake_label f) of logits with shape (B, ...).

    Example:
        >>> import torch
        >>> vanilla_discriminator(torch.zeros(2), torch.zeros(2))
        tensor(1.3863)
    """
    return _cross_entropy(logits_real, real_label) + _cross_entropy(logits_fake, fake_label)


def _cross_entropy(logits: Tensor, label: float) -> Tensor:
    """Mean binary cross-entropy of logits with shape (B, ...) against one label; exact for logits of any size."""
    # Not softplus(s) - label s: for s = 200 and label 1 that is a difference of large numbers.
    return (label * F.softplus(-logits) + (1.0 - label) * F.softplus(logits)).mean()


class VanillaGenerator(Loss):
    """Generator loss, L = mean(softplus(f) - real_label f), logits f (B, ...) (Goodfellow et al., arXiv:1406.2661).

    With label 1 it is mean(softplus(-f)), the form MMagic gives this name. latent-diffusion and taming pair their
    vanilla discriminator with the linear -mean(f) instead: write ``type: hinge`` on the generator's side for that.

    Args:
        real_label: label that the generator wants for its images, in [0, 1].
    """

    phase = "generator"

    def __init__(self, *, real_label: Label = 1.0) -> None:
        super().__init__()
        check_label("real_label", real_label)
        self.real_label = real_label

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return vanilla_generator(logits_fake, real_label=self.real_label)


class VanillaDiscriminator(Loss):
    """Discriminator loss: cross-entropy of real and fake logits (B, ...) (Goodfellow et al., arXiv:1406.2661).

    L = mean(softplus(r) - real_label r) + mean(softplus(f) - fake_label f); with labels 1 and 0 this is
    mean(softplus(-r)) + mean(softplus(f)). The originals (taming, latent-diffusion, FQGAN) have half of it:
    ``weight: 0.5``.

    Args:
        real_label: label of real images, in [0, 1]; 0.9 is one-sided label smoothing (arXiv:1606.03498).
        fake_label: label of generated images, in [0, 1].
    """

    phase = "discriminator"

    def __init__(self, *, real_label: Label = 1.0, fake_label: Label = 0.0) -> None:
        super().__init__()
        check_label("real_label", real_label)
        check_label("fake_label", fake_label)
        self.real_label = real_label
        self.fake_label = fake_label

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return vanilla_discriminator(logits_real, logits_fake, real_label=self.real_label, fake_label=self.fake_label)
