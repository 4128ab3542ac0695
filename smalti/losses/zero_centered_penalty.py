"""Zero-centred penalty: between real and fake images the discriminator is to be flat, which helps it generalise."""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._penalty import Critic, InterpolatedPenalty, Norm, interpolate, slope_penalty, squared_length


def zero_centered_penalty(
    discriminator: Critic,
    real: Tensor,
    fake: Tensor,
    epsilon: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    norm: Norm = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """mean(||g||^2) with g = d sum(D(x)) / dx at x = e real + (1 - e) fake, images (B, ...).

    Arguments as of :func:`smalti.losses.gradient_penalty.gradient_penalty`.

    Example:
        >>> import torch
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=3.0 * x[:, :1])
        >>> zero_centered_penalty(critic, torch.zeros(2, 5), torch.ones(2, 5))
        tensor(9.)
    """
    images = interpolate(real, fake, epsilon)
    return slope_penalty(squared_length, discriminator, images, mask, norm=norm, reduction=reduction)


class ZeroCenteredPenalty(InterpolatedPenalty):
    """0-GP, L = mean(||g||^2), g the slope between real and generated images (Thanh-Tung et al., arXiv:1902.03984).

    For the discriminator's phase, at weights of 10 to 100. Images have shape (B, ...), real and made batches one size.

    Args:
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def measure(self, gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
        """||g||^2 of gradients (B, ...) over ``dims``."""
        return squared_length(gradient, dims)
