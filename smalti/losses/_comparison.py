"""Losses that compare a prediction with a target: what l1, mse, charbonnier and lpips share."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor

from smalti.losses._range import Range, check_images
from smalti.losses._weighted import WeightedLoss


class ComparisonLoss(WeightedLoss):
    """Base of the losses that compare ``prediction`` with ``target``, element by element or sample by sample.

    A subclass says in ``unreduced`` what it compares; reduction and sample weights are the same for all. ``scaled_nll``
    builds its likelihood from ``unreduced``, whatever ``reduction`` was asked for.

    ``input_range`` is declared by the losses whose value has a meaning for one range of images only, and None for the
    others. A target outside it is an error; looked at in every call on a CPU, and in the first call on a device that
    one would have to wait for. Predictions may leave it: networks do.

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: what a weighted mean divides by: the sum of weights, or the number of elements.
        per_sample: average each sample first, then over samples.
    """

    input_range: ClassVar[Range | None] = None
    _range_seen = False

    @abstractmethod
    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Values with shape (B, C, H, W), one per element, or (B, 1, 1, 1), one per sample."""

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss of ``prediction`` against ``target``, both with shape (B, C, H, W).

        ``weight`` is (B,), (B, 1, 1, 1), and for losses per element also (B, 1, H, W) or (B, C, H, W).
        """
        self.check(prediction, target)
        return self.reduced(self.unreduced(prediction, target), weight)

    def check(self, prediction: Tensor, target: Tensor) -> None:
        """Raises ValueError if the images, with shape (B, C, H, W), are not in ``input_range``."""
        if self.input_range is not None and (target.device.type == "cpu" or not self._range_seen):
            check_images(prediction, target, self.input_range)
            self._range_seen = True
