"""Losses: one idea a file, a function that holds the formula and a module that holds its options."""

from typing import Literal

from torch import nn

from smalti.registry import Part

Reduction = Literal["none", "mean", "sum", "batch_sum"]


class Loss(Part, nn.Module):
    """Base of all losses: constructor arguments are options, the arguments of ``forward`` are its inputs.

    ``forward`` takes tensors (and closures) and returns a scalar, or a ``LossValue`` when it has parts worth logging.
    Weights, schedules and step counters live outside.
    """

    kind = "loss"
    package = "smalti.losses"
    stand_ins = (nn.Module,)
    functions = True
