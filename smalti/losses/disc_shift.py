"""Discriminator shift: squared scores, a spring that keeps a critic from drifting where its loss does not mind."""

from torch import Tensor

from smalti.losses import Loss


def disc_shift(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """(mean(r^2) + mean(f^2)) / 2 of scores r and f with shape (B, ...).

    Example:
        >>> import torch
        >>> disc_shift(torch.tensor([1.0, 3.0]), torch.tensor([1.0]))
        tensor(3.)
    """
    return 0.5 * (logits_real.square().mean() + logits_fake.square().mean())


class DiscShift(Loss):
    """L = (mean(r^2) + mean(f^2)) / 2 of scores r and f (B, ...), PGGAN's drift (Karras et al., arXiv:1710.10196).

    For the critic's phase, at ``weight: 0.001``. MMagic writes it as two terms of weight 0.0005. The paper has only
    real scores: ``inputs: {logits_fake: logits_real}``.
    """

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return disc_shift(logits_real, logits_fake)
