"""R1: at real images the discriminator is to be flat, so that training settles once the generator is right.

The usual gamma / 2 is the term's ``weight``: gamma 10 is ``weight: 5``. As a lazy term, ``every: 16``, the weight keeps
its meaning. MMagic's default squares the length at each pixel and averages over pixels, H W times less than this:
``norm: pixel``.
"""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._penalty import Critic, Norm, SlopePenalty, slope_penalty, squared_length


def r1(
    discriminator: Critic,
    real: Tensor,
    mask: Tensor | None = None,
    *,
    norm: Norm = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """mean(||g||^2) with g = d sum(D(x)) / dx at real images x.

    Args:
        discriminator: images -> ``DiscriminatorOutput``.
        real: with shape (B, ...).
        mask: (B,), (B, 1, H, W), or the shape of the images: where the penalty acts.
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).

    Raises:
        ValueError: for an unknown option value or a mask that does not fit.

    Example:
        >>> import torch
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=3.0 * x[:, :1])
        >>> r1(critic, torch.zeros(2, 5))
        tensor(9.)
    """
    return slope_penalty(squared_length, discriminator, real, mask, norm=norm, reduction=reduction)


class R1(SlopePenalty):
    """R1 = mean(||g||^2), g the discriminator's slope at real images (B, ...) (Mescheder et al., arXiv:1801.04406).

    For the discriminator's phase, at ``weight: gamma / 2``.

    Args:
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def forward(self, discriminator: Critic, real: Tensor, mask: Tensor | None = None) -> Tensor:
        """The penalty at ``real`` (B, ...), where ``mask`` (B,), (B, 1, H, W) or (B, ...) lets it act."""
        return r1(discriminator, real, mask, norm=self.norm, reduction=self.reduction)
