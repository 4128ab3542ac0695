"""Metrics of which codes were chosen over a whole evaluation, from whole numbers that add up over ranks."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.metrics import Metric, Observation

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


class CodeMetric(Metric):
    """Base of the metrics of codes; a subclass says in ``summarize`` what the counts mean."""

    def create(self) -> "Accumulator":
        """An accumulator of counts; ``compute()`` gives named numbers, none for a model without codebooks."""
        from smalti.metrics._accumulators import CodeCounts

        return CodeCounts(self.summarize)

    def begin(self, accumulator: "Accumulator", codebook_sizes: Mapping[str, int]) -> None:
        """Declares the codebooks: name -> number of codes K."""
        accumulator.declare(codebook_sizes)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Counts the tokens of a batch, with shape (B, G, h, w)."""
        accumulator.update(observation.bottleneck.indices, observation.codebook_sizes)

    @abstractmethod
    def summarize(self, counts: Mapping[str, Tensor], sizes: Mapping[str, int], images: Tensor) -> dict[str, Tensor]:
        """Named numbers from codebook -> counts, codebook -> number of codes K, and the number of images.

        Counts are int64 with shape (K,), or of a very large codebook (N,), of the N codes that were chosen.
        """


def entropy(counts: Tensor) -> Tensor:
    """Entropy in bits, a scalar, of the frequencies that ``counts`` with shape (K,) give; not a number without any.

    Example:
        >>> entropy(torch.tensor([2, 2, 0, 4]))
        tensor(1.5000, dtype=torch.float64)
    """
    frequencies = counts.double() / counts.sum()
    return -torch.where(counts > 0, frequencies * torch.log2(frequencies), 0.0 * frequencies).sum()


def named(metric: str, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``metric/<codebook>`` -> value, and the plain name if there is one codebook."""
    found = {f"{metric}/{name}": value for name, value in values.items()}
    if len(values) == 1:
        found[metric] = next(iter(values.values()))
    return found
