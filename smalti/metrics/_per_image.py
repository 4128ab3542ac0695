"""Metrics that are the mean over images of what each image has: what psnr, ssim and lpips share."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor

from smalti.metrics import Metric, Observation

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


class PerImageMetric(Metric):
    """Base of the metrics that a subclass defines by ``per_image``; ``names`` says what its values are called."""

    names: tuple[str, ...]

    def create(self) -> "Accumulator":
        """An accumulator of sums and of the number of images; ``compute()`` gives name -> mean."""
        from smalti.metrics._accumulators import ImageMeans

        return ImageMeans(*self.names)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Adds the values of a batch of images, each with shape (B, C, H, W)."""
        accumulator.update(self.per_image(observation))

    @abstractmethod
    def per_image(self, observation: Observation) -> Mapping[str, Tensor]:
        """Name -> values with shape (B,)."""
