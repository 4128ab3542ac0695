"""Metrics of two sets of images: what wasserstein, sliced_wasserstein and the checks of variety share."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.data import ImageSource
from smalti.data.loader import evaluation_batches, to_device
from smalti.data.transforms import Transform
from smalti.losses._range import SIGNED, check_images, clamped
from smalti.metrics import Metric, Observation

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


class SetMetric(Metric):
    """Base of the metrics that compare all real with all made images; a subclass gives ``summarize``."""

    higher_is_better: bool | None = False

    @abstractmethod
    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """Name -> number of real and made images, each with shape (N, C, H, W) in [-1, 1]."""

    def create(self) -> "Accumulator":
        """An accumulator that keeps all images."""
        from smalti.metrics._sample_sets import SampleSets

        return SampleSets(self.summarize)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Adds the images of a batch, each with shape (B, C, H, W), made ones clamped to [-1, 1].

        Raises:
            ValueError: for real images outside [-1, 1].
        """
        check_images(observation.reconstruction, observation.target, SIGNED)
        accumulator.update(observation.target, clamped(observation.reconstruction.float(), SIGNED))


def images_of(source: ImageSource, transform: Transform) -> tuple[Tensor, Tensor | None]:
    """All images of a source with shape (N, C, H, W) in [-1, 1], and their labels (N,) if it has such a column."""
    batches = [to_device(batch, "cpu") for batch in evaluation_batches(source, transform, 256)]
    labels = [batch["label"] for batch in batches if "label" in batch]
    return torch.cat([batch["image"] for batch in batches]), torch.cat(labels) if labels else None
