"""LSGAN: least squares between logits and labels; the gradient grows with the distance from the label."""

from torch import Tensor

from smalti.losses import Loss


def lsgan_generator(logits_fake: Tensor, *, real_label: float = 1.0) -> Tensor:
    """mean((f - real_label)^2) of logits f with shape (B, ...).

    Example:
        >>> import torch
        >>> lsgan_generator(torch.tensor([1.0, 3.0]))
        tensor(2.)
    """
    return (logits_fake - real_label).square().mean()


def lsgan_discriminator(
    logits_real: Tensor, logits_fake: Tensor, *, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    """mean((r - real_label)^2) + mean((f - fake_label)^2) of logits r and f with shape (B, ...).

    Example:
        >>> import torch
        >>> lsgan_discriminator(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))
        tensor(4.)
    """
    return (logits_real - real_label).square().mean() + (logits_fake - fake_label).square().mean()


class LSGANGenerator(Loss):
    """Generator loss, L = mean((f - real_label)^2) of logits f (B, ...) (Mao et al., arXiv:1611.04076).

    Args:
        real_label: what the generator wants its images to score, any number (c in the paper).
    """

    phase = "generator"

    def __init__(self, *, real_label: float = 1.0) -> None:
        super().__init__()
        self.real_label = real_label

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return lsgan_generator(logits_fake, real_label=self.real_label)


class LSGANDiscriminator(Loss):
    """Discriminator loss, L = mean((r - real_label)^2) + mean((f - fake_label)^2) (Mao et al., arXiv:1611.04076).

    Logits r and f have shape (B, ...). The paper's factor 1/2 is a term's ``weight``.

    Args:
        real_label: what real images should score (b in the paper).
        fake_label: what generated images should score (a in the paper).
    """

    phase = "discriminator"

    def __init__(self, *, real_label: float = 1.0, fake_label: float = 0.0) -> None:
        super().__init__()
        self.real_label = real_label
        self.fake_label = fake_label

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return lsgan_discriminator(logits_real, logits_fake, real_label=self.real_label, fake_label=self.fake_label)
