"""Total variation: how much neighbouring pixels differ."""

from typing import Literal

import torch
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._reduction import Weighting, check_choice, reduce
from smalti.losses._weighted import WeightedLoss

Norm = Literal["l1", "l2"]


def tv(
    prediction: Tensor,
    weight: Tensor | None = None,
    *,
    norm: Norm = "l2",
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = dx^2 + dy^2 (``l2``) or |dx| + |dy| (``l1``), one per pixel, reduced.

    dx and dy are the differences to the right and the lower neighbour, 0 in the last column and row.

    Args:
        prediction: with shape (B, C, H, W).
        weight: (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W).
        norm: whether differences are squared or taken absolutely.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for an unknown option value, or a weight that does not fit.

    Example:
        >>> tv(torch.tensor([[[[0.0, 3.0], [4.0, 0.0]]]]), norm="l1", reduction="sum")
        tensor(14.)
    """
    check_choice("norm", norm, Norm)
    dx = torch.diff(prediction, dim=3, append=prediction[..., -1:])
    dy = torch.diff(prediction, dim=2, append=prediction[..., -1:, :])
    values = dx.square() + dy.square() if norm == "l2" else dx.abs() + dy.abs()
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class TV(WeightedLoss):
    """TV = mean dx^2 + dy^2, or |dx| + |dy|, over (B, C, H, W) (Mahendran & Vedaldi, arXiv:1412.0035).

    Args:
        norm: ``l2`` squares the differences, ``l1`` takes them absolutely.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    def __init__(
        self,
        *,
        norm: Norm = "l2",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        check_choice("norm", norm, Norm)
        self.norm: Norm = norm

    def forward(self, prediction: Tensor, weight: Tensor | None = None) -> Tensor:
        """Total variation of ``prediction`` with shape (B, C, H, W); ``weight`` as for every loss per element."""
        return self.reduced(tv(prediction, norm=self.norm, reduction="none"), weight)
