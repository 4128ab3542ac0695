"""DRAGAN: in the neighbourhood of real images the discriminator is to have slope 1, wherever the fakes are.

PyTorch-GAN measures the slope of each pixel (``norm: pixel``) and has the factor 10 inside; here that is ``weight``.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._penalty import Critic, Norm, SlopePenalty, slope_penalty, squared_deviation


def dragan(
    discriminator: Critic,
    real: Tensor,
    epsilon: Tensor | None = None,
    noise: Tensor | None = None,
    *,
    scale: float = 0.5,
    norm: Norm = "sample",
    reduction: Reduction = "mean",
) -> Tensor:
    """mean((||g|| - 1)^2) with g = d sum(D(x)) / dx at x = real + (1 - e) scale std(real) u.

    Args:
        discriminator: images -> ``DiscriminatorOutput``.
        real: with shape (B, ...), at least 2 values in all; std is taken over the whole batch.
        epsilon: e, same shape; drawn uniformly in [0, 1) for each element if it is not given.
        noise: u, same shape; drawn likewise.
        scale: size of the neighbourhood in standard deviations.
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).

    Raises:
        ValueError: for a negative scale or an unknown option value.

    Example:
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=3.0 * x[:, :1])
        >>> dragan(critic, torch.eye(2))
        tensor(4.)
    """
    _check_scale(scale)
    epsilon = torch.rand_like(real) if epsilon is None else epsilon.to(real.dtype)
    noise = torch.rand_like(real) if noise is None else noise.to(real.dtype)
    around = real + (1.0 - epsilon) * scale * real.std() * noise
    return slope_penalty(squared_deviation, discriminator, around, norm=norm, reduction=reduction)


def _check_scale(scale: float) -> None:
    if not scale >= 0.0:
        raise ValueError(f"scale={scale!r}: expected a number of at least 0")


class DRAGAN(SlopePenalty):
    """DRAGAN, L = mean((||g|| - 1)^2) around real images (B, ...) (Kodali et al., arXiv:1705.07215).

    For the discriminator's phase, at ``weight: 10``, beside ``vanilla`` or ``non_saturating``.

    Args:
        scale: size of the neighbourhood in standard deviations of the batch.
        norm: ``sample`` takes one length for each image, ``pixel`` one for each pixel (PyTorch-GAN).
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "the deviation of its real images"}

    def __init__(
        self,
        *,
        scale: Annotated[float, Field(ge=0.0)] = 0.5,
        norm: Norm = "sample",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(norm=norm, reduction=reduction)
        _check_scale(scale)
        self.scale = scale

    def statistics(self) -> Mapping[str, str]:
        """The deviation of real images, unless it is multiplied by 0."""
        return self.batch_statistics if self.scale else {}

    def forward(
        self, discriminator: Critic, real: Tensor, epsilon: Tensor | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """The penalty around ``real`` with shape (B, ...); both others likewise, or drawn."""
        return dragan(discriminator, real, epsilon, noise, scale=self.scale, norm=self.norm, reduction=self.reduction)
