"""Wasserstein divergence: the critic's slope to a high power is added, and no Lipschitz bound is asked for."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.losses import Loss, Reduction
from smalti.losses._penalty import Critic, slope_penalty
from smalti.losses._reduction import check_reduction


def wgan_div(
    discriminator: Critic, real: Tensor, fake: Tensor, *, power: float = 6.0, reduction: Reduction = "mean"
) -> Tensor:
    """mean(||g_r||^power) + mean(||g_f||^power), g = d sum(D(x)) / dx at real and at generated images.

    Args:
        discriminator: images -> ``DiscriminatorOutput``.
        real: with shape (B, ...).
        fake: with shape (B, ...).
        power: p of the paper, at least 1.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).

    Raises:
        ValueError: for a power below 1 or an unknown reduction.

    Example:
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=2.0 * x[:, :1])
        >>> wgan_div(critic, torch.zeros(2, 5), torch.ones(2, 5), power=3.0)
        tensor(16.)
    """
    _check_power(power)

    def measure(gradient: Tensor, dims: tuple[int, ...]) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(gradient, dim=dims)
        return length**power

    return slope_penalty(measure, discriminator, real, reduction=reduction) + slope_penalty(
        measure, discriminator, fake, reduction=reduction
    )


def _check_power(power: float) -> None:
    if not power >= 1.0:
        raise ValueError(f"power={power!r}: expected a number of at least 1")


class WGANDiv(Loss):
    """WGAN-div, L = mean(||g_r||^p) + mean(||g_f||^p), g the critic's slope at images (B, ...) (arXiv:1712.01026).

    (Wu et al.) For the critic's phase, beside ``wgan``. The paper's factor k / 2 is the term's ``weight``: 1 for its
    k = 2.

    Args:
        power: p, at least 1.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def __init__(self, *, power: Annotated[float, Field(ge=1.0)] = 6.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        _check_power(power)
        check_reduction(reduction, "weighted_mean", False)
        self.power = power
        self.reduction: Reduction = reduction

    def forward(self, discriminator: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """The penalty at ``real`` and ``fake``, both with shape (B, ...)."""
        return wgan_div(discriminator, real, fake, power=self.power, reduction=self.reduction)
