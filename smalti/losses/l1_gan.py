"""L1 GAN: distances between scores and labels; its slope has one size everywhere.

MMagic's ``AdvLoss('lsgan')`` is this loss, not least squares, with weight 1/2 on the discriminator's side.
"""

from torch import Tensor

from smalti.losses import Loss


def l1_gan_generator(logits_fake: Tensor, *, real_label: float = 1.0) -> Tensor:
    """mean(|f - real_label|) of scores f with shape (B, ...).

    Example:
        >>> import torch
        >>> l1_gan_generator(torch.tensor([1.0, 3.0]))
        tensor(1.)
    """
    return (logits_fake - real_label).abs().mean()


def l1_gan_discriminator(
    logits_real: Tensor, logits_fake: Tensor, *, real_label: float = 1.0, fake_label: float = 0.0
) -> Tensor:
    """mean(|r - real_label|) + mean(|f - fake_label|) of scores r and f with shape (B, ...)."""
    return l1_gan_generator(logits_real, real_label=real_label) + l1_gan_generator(logits_fake, real_label=fake_label)


class L1GANGenerator(Loss):
    """Generator loss, L = mean(|f - real_label|) of scores f with shape (B, ...) (MMagic; cf. arXiv:1611.04076).

    Args:
        real_label: what the generator wants its images to score.
    """

    phase = "generator"

    def __init__(self, *, real_label: float = 1.0) -> None:
        super().__init__()
        self.real_label = real_label

    def forward(self, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...)."""
        return l1_gan_generator(logits_fake, real_label=self.real_label)


class L1GANDiscriminator(Loss):
    """Discriminator loss, L = mean(|r - real_label|) + mean(|f - fake_label|) (MMagic; cf. arXiv:1611.04076).

    Scores r and f have shape (B, ...).

    Args:
        real_label: what real images should score.
        fake_label: what generated images should score.
    """

    phase = "discriminator"

    def __init__(self, *, real_label: float = 1.0, fake_label: float = 0.0) -> None:
        super().__init__()
        self.real_label = real_label
        self.fake_label = fake_label

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return l1_gan_discriminator(logits_real, logits_fake, real_label=self.real_label, fake_label=self.fake_label)
