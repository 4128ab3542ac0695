"""MSE: the mean squared error, the negative log-likelihood of a Gaussian of fixed scale up to factors."""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._reduction import Weighting, check_same_shape, reduce


def mse(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = (prediction - target)^2, reduced.

    Args:
        prediction: with shape (B, C, H, W).
        target: same shape.
        weight: (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W).
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for unequal shapes, an unknown option value, or a weight that does not fit.

    Example:
        >>> import torch
        >>> mse(torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, -1.0]]))
        tensor(5.)
    """
    check_same_shape(prediction, target)
    values = (prediction - target).square()
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class MSE(ComparisonLoss):
    """MSE = mean (prediction - target)^2 over (B, C, H, W) (for images: Zhao et al., arXiv:1511.08861).

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """(prediction - target)^2 with shape (B, C, H, W)."""
        return mse(prediction, target, reduction="none")
