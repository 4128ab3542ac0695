"""Metrics of two sets of images, real and made, that need all of them at once.

Importing this imports torchmetrics, which takes over a second: only ``Metric.create`` does.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchmetrics import Metric


class SampleSets(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """Keeps all real and all made images, in the order of arrival.

    Args:
        summarize: (real, made), each with shape (N, C, H, W), to name -> number.
    """

    full_state_update = False
    real: list[Tensor] | Tensor  # one tensor once ranks were gathered
    made: list[Tensor] | Tensor

    def __init__(self, summarize: Callable[[Tensor, Tensor], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.summarize = summarize
        self.add_state("real", [], dist_reduce_fx="cat")
        self.add_state("made", [], dist_reduce_fx="cat")

    def update(self, real: Tensor, made: Tensor) -> None:
        """Adds images with shape (B, C, H, W) in [-1, 1]."""
        if isinstance(self.real, list) and isinstance(self.made, list):
            self.real.append(real.detach().float())
            self.made.append(made.detach().float())

    def compute(self) -> dict[str, Tensor]:
        """Name -> number."""
        real, made = (value if isinstance(value, Tensor) else torch.cat(value) for value in (self.real, self.made))
        return dict(self.summarize(real, made))
