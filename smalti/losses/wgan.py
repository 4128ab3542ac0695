"""WGAN: the critic estimates a Wasserstein distance; it needs a Lipschitz bound (clipping, a penalty) beside it."""

from torch import Tensor

from smalti.losses import Loss


def wgan_generator(logits_fake: Tensor) -> Tensor:
    """-mean(f) of scores f with shape (B, ...).

    Example:
        >>> import torch
        >>> wgan_generator(torch.tensor([1.0, 3.0]))
        tensor(-2.)
    """
    return -logits_fake.mean()


def wgan_discriminator(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """mean(f) - mean(r) of scores r and f with shape (B, ...): minus the estimated distance.

    Example:
        >>> import torch
        >>> wgan_discriminator(torch.tensor([1.0, 3.0]), torch.tensor([0.5]))
        tensor(-1.5000)
    """
    return logits_fake.mean() - logits_real.mean()


class WGANGenerator(Loss):
    """Generator loss, L = -mean(f) of scores f with shape (B, ...) (Arjovsky et al., arXiv:1701.07875).

    Its value alone means nothing: adding a constant to the critic changes it.
    """

    phase = "generator"

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return wgan_generator(logits_fake)


class WGANDiscriminator(Loss):
    """Critic loss, L = mean(f) - mean(r) of scores with shape (B, ...) (Arjovsky et al., arXiv:1701.07875).

    -L estimates the Wasserstein distance times the critic's Lipschitz constant.
    """

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return wgan_discriminator(logits_real, logits_fake)
