"""Lipschitz penalty: only slopes above 1 are penalised, for a 1-Lipschitz critic may well be flat."""

import torch
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Reduction
from smalti.losses._penalty import Critic, InterpolatedPenalty, Norm, interpolate, slope_penalty


def lipschitz_penalty(
    discriminator: Critic,
    real: Tensor,
    fake: Tensor,
    epsilon: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    norm: Norm = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """mean(max(0, ||g|| - 1)^2) with g = d sum(D(x)) / dx at x = e real + (1 - e) fake, images (B, ...).

    Arguments as of :func:`smalti.losses.gradient_penalty.gradient_penalty`.

    Example:
        >>> from smalti.outputs import DiscriminatorOutput
        >>> steep, flat = (lambda x, s=s: DiscriminatorOutput(logits=s * x[:, :1]) for s in (3.0, 0.5))
        >>> images = torch.zeros(2, 5)
        >>> lipschitz_penalty(steep, images, images), lipschitz_penalty(flat, images, images)
        (tensor(4.), tensor(0.))
    """
    images = interpolate(real, fake, epsilon)
    return slope_penalty(_squared_excess, discriminator, images, mask, norm=norm, reduction=reduction)


def _squared_excess(gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(gradient, dim=dims)
    return F.relu(length - 1.0).square()


class LipschitzPenalty(InterpolatedPenalty):
    """One-sided penalty, L = mean(max(0, ||g|| - 1)^2) between real and fake images (Petzka et al., arXiv:1709.08894).

    For the critic's phase, at ``weight: 10``. Images have shape (B, ...); real and made batches must be of one size.

    Args:
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def measure(self, gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
        """max(0, ||g|| - 1)^2 of gradients (B, ...) over ``dims``."""
        return _squared_excess(gradient, dims)
