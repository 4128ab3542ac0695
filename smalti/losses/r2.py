"""R2: at fake images the discriminator is to be flat; R3GAN needs it beside R1. The factor gamma / 2 is ``weight``."""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._penalty import Critic, Norm, SlopePenalty
from smalti.losses.r1 import r1


def r2(
    discriminator: Critic,
    fake: Tensor,
    mask: Tensor | None = None,
    *,
    norm: Norm = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """mean(||g||^2) with g = d sum(D(x)) / dx at fake images x (B, ...): :func:`smalti.losses.r1.r1` of other images.

    Example:
        >>> import torch
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=4.0 * x[:, :1])
        >>> r2(critic, torch.ones(2, 4))
        tensor(16.)
    """
    return r1(discriminator, fake, mask, norm=norm, reduction=reduction)


class R2(SlopePenalty):
    """R2 = mean(||g||^2), g the discriminator's slope at fake images (B, ...) (Mescheder et al., arXiv:1801.04406).

    For the discriminator's phase, at ``weight: gamma / 2``; beside ``relativistic`` and ``r1`` it makes R3GAN's loss
    (arXiv:2501.05441).

    Args:
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def forward(self, discriminator: Critic, fake: Tensor, mask: Tensor | None = None) -> Tensor:
        """The penalty at ``fake`` (B, ...), where ``mask`` (B,), (B, 1, H, W) or (B, ...) lets it act."""
        return r2(discriminator, fake, mask, norm=self.norm, reduction=self.reduction)
