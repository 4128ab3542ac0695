"""Losses: one idea a file, a function that holds the formula and a module that holds its options."""

from collections.abc import Collection, Mapping
from typing import ClassVar, Literal

from torch import nn

from smalti.registry import Part

SUMMED = "with `reduction: sum` the sum over its samples"
Reduction = Literal["none", "mean", "sum", "batch_sum"]


class Loss(Part, nn.Module):
    """Base of all losses: constructor arguments are options, the arguments of ``forward`` are its inputs.

    ``forward`` takes tensors (and closures) and returns a scalar, or a ``LossValue`` when it has parts worth logging.
    Weights, schedules and step counters live outside.

    The loss of a batch is the mean of the losses of its parts of equal size, so that accumulation over micro-batches
    changes nothing - except for what ``batch_statistics`` tells: the name of an input -> what of the batch is looked at
    once it is bound, and ``""`` -> what is looked at anyway.
    """

    kind = "loss"
    package = "smalti.losses"
    stand_ins = (nn.Module,)
    functions = True
    batch_statistics: ClassVar[Mapping[str, str]] = {}

    def statistics(self) -> Mapping[str, str]:
        """``batch_statistics`` as far as the options of this loss make it so."""
        return self.batch_statistics

    def looks_at(self, inputs: Collection[str]) -> str:
        """What it looks at of the batch as a whole when ``inputs`` are bound; empty if it is a mean over samples."""
        found = [text for name, text in self.statistics().items() if not name or name in inputs]
        if getattr(self, "reduction", None) == "sum":
            found.append(SUMMED)
        return ", ".join(found)
