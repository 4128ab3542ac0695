"""Charbonnier: L1 with a rounded corner, differentiable where prediction and target agree."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._reduction import Weighting, check_same_shape, reduce


def charbonnier(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float = 1e-12,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = sqrt((prediction - target)^2 + eps), reduced; its least value is sqrt(eps).

    Args:
        prediction: with shape (B, C, H, W).
        target: same shape.
        weight: (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W).
        eps: the loss is quadratic below sqrt(eps), > 0, in squared units of the images.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for unequal shapes, an unknown option value, or a weight that does not fit.

    Example:
        >>> import torch
        >>> charbonnier(torch.tensor([[0.0, 4.0]]), torch.zeros(1, 2), eps=9.0)
        tensor(4.)
    """
    check_same_shape(prediction, target)
    values = ((prediction - target).square() + eps).sqrt()
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class Charbonnier(ComparisonLoss):
    """Charbonnier = mean sqrt((prediction - target)^2 + eps) over (B, C, H, W) (Lai et al., arXiv:1710.01992).

    Not kornia's loss of that name, which is sqrt(d^2 + 1) - 1.

    Args:
        eps: the loss is quadratic below sqrt(eps), in squared units of the images.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    def __init__(
        self,
        *,
        eps: Annotated[float, Field(gt=0.0)] = 1e-12,
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        if eps <= 0.0:
            raise ValueError(f"eps={eps}: expected > 0")
        self.eps = eps

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """sqrt((prediction - target)^2 + eps) with shape (B, C, H, W)."""
        return charbonnier(prediction, target, eps=self.eps, reduction="none")
