"""Metrics: how good a reconstruction or a codebook is. Recipes name them; torchmetrics accumulates them."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from smalti.outputs import BottleneckOutput
from smalti.registry import Part

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a metric sees of one batch.

    Args:
        target: real images with shape (B, C, H, W) in [-1, 1].
        reconstruction: made images with shape (B, C, H, W), not clamped.
        bottleneck: what stood between them.
        codebook_sizes: name -> number of codes.
    """

    target: Tensor
    reconstruction: Tensor
    bottleneck: BottleneckOutput
    codebook_sizes: dict[str, int]


class Metric(Part):
    """Base of all metrics: a light description; ``create`` imports torchmetrics and gives the accumulator.

    ``higher_is_better`` defines what "best" means when a recipe monitors the metric; None: it cannot be monitored.
    """

    kind = "metric"
    package = "smalti.metrics"
    higher_is_better: bool | None = None

    @abstractmethod
    def create(self) -> "Accumulator":
        """A new torchmetrics accumulator; ``compute()`` gives one tensor or a flat mapping of names to tensors."""

    @abstractmethod
    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Feeds one batch to the accumulator."""
