"""Losses that are one value per element, position or sample before they are reduced."""

from collections.abc import Mapping

from torch import Tensor

from smalti.losses import Loss, Reduction
from smalti.losses._reduction import WEIGHTS, Weighting, check_reduction, reduce, weight_statistics


class WeightedLoss(Loss):
    """Base of the losses that are averaged or summed, under sample weights if there are any.

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: what a weighted mean divides by: the sum of weights, or the number of elements.
        per_sample: average each sample first, then over samples.
    """

    batch_statistics = WEIGHTS

    def __init__(
        self,
        *,
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__()
        check_reduction(reduction, weighting, per_sample)
        self.reduction: Reduction = reduction
        self.weighting: Weighting = weighting
        self.per_sample = per_sample

    def statistics(self) -> Mapping[str, str]:
        """The sum of the weights, where a mean over the whole batch is divided by it."""
        return weight_statistics(self.weighting, self.reduction, self.per_sample)

    def reduced(self, values: Tensor, weight: Tensor | None) -> Tensor:
        """``values`` with shape (B, ...) as a scalar, or unreduced; ``weight`` as in ``reduce``."""
        return reduce(values, weight, reduction=self.reduction, weighting=self.weighting, per_sample=self.per_sample)
