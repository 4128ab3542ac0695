"""Losses that compare a prediction with a target: what l1, mse, charbonnier and lpips share."""

from abc import abstractmethod

from torch import Tensor

from smalti.losses import Loss, Reduction
from smalti.losses._reduction import Weighting, check_reduction, reduce


class ComparisonLoss(Loss):
    """Base of the losses that compare ``prediction`` with ``target``, element by element or sample by sample.

    A subclass says in ``unreduced`` what it compares; reduction and sample weights are the same for all. ``scaled_nll``
    builds its likelihood from ``unreduced``, whatever ``reduction`` was asked for.

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: what a weighted mean divides by: the sum of weights, or the number of elements.
        per_sample: whether the mean is taken of each sample first.
    """

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

    @abstractmethod
    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Values with shape (B, C, H, W), one per element, or (B, 1, 1, 1), one per sample."""

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of ``prediction`` against ``target``, both with shape (B, C, H, W).

        ``weight`` is (B,), (B, 1, 1, 1), and for losses per element also (B, 1, H, W) or (B, C, H, W).
        """
        return reduce(
            self.unreduced(prediction, target),
            weight,
            reduction=self.reduction,
            weighting=self.weighting,
            per_sample=self.per_sample,
        )
