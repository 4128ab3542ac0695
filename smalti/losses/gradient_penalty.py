"""Gradient penalty: on the way from real to fake images the critic is to have slope 1, as a Kantorovich potential has.

MMagic asks by default for slope 1 at each PIXEL, which makes the slope of an H x W image sqrt(H W): ``norm: pixel``.
The paper's penalty, one length for each sample, is the default here. A critic with batch normalisation has no slope of
a single sample: use another normalisation, or none.
"""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._penalty import (
    Critic,
    InterpolatedPenalty,
    Norm,
    interpolate,
    slope_penalty,
    squared_deviation,
)


def gradient_penalty(
    discriminator: Critic,
    real: Tensor,
    fake: Tensor,
    epsilon: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    norm: Norm = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """mean((||g|| - 1)^2) with g = d sum(D(x)) / dx at x = e real + (1 - e) fake.

    Args:
        discriminator: images -> ``DiscriminatorOutput``.
        real: with shape (B, ...).
        fake: same shape.
        epsilon: share e of the real image, with shape (B,) or (B, 1, 1, 1); drawn uniformly if it is not given.
        mask: (B,), (B, 1, H, W), or the shape of the images: where the penalty acts.
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).

    Raises:
        ValueError: for unequal shapes, an unknown option value, or a mask that does not fit.

    Example:
        A critic of slope 3 along one axis misses slope 1 by 2.

        >>> import torch
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=3.0 * x[:, :1])
        >>> gradient_penalty(critic, torch.zeros(2, 5), torch.ones(2, 5))
        tensor(4.)
    """
    images = interpolate(real, fake, epsilon)
    return slope_penalty(squared_deviation, discriminator, images, mask, norm=norm, reduction=reduction)


class GradientPenalty(InterpolatedPenalty):
    """WGAN-GP, L = mean((||g|| - 1)^2), g the slope between real and fake images (Gulrajani et al., arXiv:1704.00028).

    For the critic's phase, at ``weight: 10``. Images have shape (B, ...); real and made batches must be of one size.

    Args:
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel (MMagic's default).
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def measure(self, gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
        """(||g|| - 1)^2 of gradients (B, ...) over ``dims``."""
        return squared_deviation(gradient, dims)
