"""Non-saturating: the generator maximises log D of its fakes; minimising log(1 - D) has no slope when D is sure.

LlamaGen and FQGAN swap the arguments of the cross-entropy in their loss of this name: there the discriminator has no
gradient on fakes and a constant one on reals. The form here is the intended one.
"""

from torch import Tensor

from smalti.losses import Loss
from smalti.losses.vanilla import vanilla_discriminator, vanilla_generator


def non_saturating_generator(logits_fake: Tensor) -> Tensor:
    """mean(softplus(-f)) of logits f with shape (B, ...).

    Example:
        >>> import torch
        >>> non_saturating_generator(torch.zeros(2))
        tensor(0.6931)
    """
    return vanilla_generator(logits_fake)


def non_saturating_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """mean(softplus(-r)) + mean(softplus(f)) of logits r and f with shape (B, ...).

    Example:
        >>> import torch
        >>> non_saturating_discriminator(torch.zeros(2), torch.zeros(2))
        tensor(1.3863)
    """
    return vanilla_discriminator(logits_real, logits_fake)


class NonSaturatingGenerator(Loss):
    """Generator loss, L = mean(softplus(-f)) of logits f with shape (B, ...) (Goodfellow et al., arXiv:1406.2661).

    ``vanilla`` is the same pair with labels as options.
    """

    phase = "generator"

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return non_saturating_generator(logits_fake)


class NonSaturatingDiscriminator(Loss):
    """Discriminator loss, L = mean(softplus(-r)) + mean(softplus(f)), logits (B, ...) (arXiv:1406.2661).

    FQGAN's intended loss is half of it: ``weight: 0.5``.
    """

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return non_saturating_discriminator(logits_real, logits_fake)
