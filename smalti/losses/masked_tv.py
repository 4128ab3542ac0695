"""Masked total variation: smoothness inside a mask, each direction averaged by itself."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from smalti.losses import Loss
from smalti.losses._reduction import (
    WEIGHTS,
    Weighting,
    broadcast_weight,
    check_choice,
    check_reduction,
    reduce,
    weight_statistics,
)

# The two directions have different numbers of differences, so there is no unreduced value per pixel: tv has one.
ScalarReduction = Literal["mean", "sum", "batch_sum"]


def masked_tv(
    prediction: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: ScalarReduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """mean |x[i] - x[i + 1]| down the columns + the same along the rows, each reduced by itself.

    A difference has the weight of its upper or left pixel.

    Args:
        prediction: with shape (B, C, H, W), at least 2 x 2 pixels.
        weight: the mask, (B, 1, H, W) or (B, C, H, W), or weights (B,) or (B, 1, 1, 1); None is 1 everywhere.
        reduction: ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for an unknown option value, images too small, or a weight that does not fit.

    Example:
        >>> image = torch.tensor([[[[0.0, 3.0], [4.0, 4.0]]]])
        >>> masked_tv(image), masked_tv(image, torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]))
        (tensor(4.), tensor(7.))
    """
    check_choice("reduction", reduction, ScalarReduction)
    if min(prediction.shape[-2:]) < 2:
        raise ValueError(f"prediction has shape {tuple(prediction.shape)}: expected at least 2 x 2 pixels")
    mask = None if weight is None else broadcast_weight(weight, prediction).expand(-1, -1, *prediction.shape[-2:])

    def reduced(axis: int) -> Tensor:
        values = torch.diff(prediction, dim=axis).abs()
        of_first = None if mask is None else mask.narrow(axis, 0, values.shape[axis])
        return reduce(values, of_first, reduction=reduction, weighting=weighting, per_sample=per_sample)

    return reduced(2) + reduced(3)


class MaskedTV(Loss):
    """Masked TV = mean |x[i] - x[i + 1]| over rows + over columns of (B, C, H, W) (Rudin et al., 1992).

    (doi:10.1016/0167-2789(92)90242-F.) Unlike ``tv`` with ``norm: l1`` the two directions are averaged by themselves.

    Args:
        reduction: ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    batch_statistics = WEIGHTS

    def __init__(
        self,
        *,
        reduction: ScalarReduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__()
        check_choice("reduction", reduction, ScalarReduction)
        check_reduction(reduction, weighting, per_sample)
        self.reduction: ScalarReduction = reduction
        self.weighting: Weighting = weighting
        self.per_sample = per_sample

    def statistics(self) -> Mapping[str, str]:
        """The sums of the weights, where means over the whole batch are divided by them."""
        return weight_statistics(self.weighting, self.reduction, self.per_sample)

    def forward(self, prediction: Tensor, weight: Tensor | None = None) -> Tensor:
        """Variation of ``prediction`` (B, C, H, W) under ``weight``: (B, 1, H, W), (B, C, H, W), (B,), (B, 1, 1, 1)."""
        return masked_tv(
            prediction, weight, reduction=self.reduction, weighting=self.weighting, per_sample=self.per_sample
        )
