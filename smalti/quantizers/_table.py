"""Codes that are listed: what the quantizers with a table share."""

from abc import abstractmethod

import torch
from torch import Tensor

from smalti.nn.precision import full_precision
from smalti.quantizers import Quantizer, gather, mean_row


class Table(Quantizer):
    """Base of quantizers whose codes are K rows of d channels; a subclass says in ``rows`` what they are."""

    @abstractmethod
    def rows(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All codes with shape (K, d), in at least float32."""

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes of ``indices`` (B, h, w), with shape (B, d, h, w)."""
        with full_precision():
            return gather(self.rows(), indices)

    @torch.no_grad()
    def mean(self) -> Tensor:
        """The mean code with shape (d,), weighted by how often codes were chosen over the window.

        Before the first update all codes count equally.
        """
        with full_precision():
            return mean_row(self.rows(), self.weights())
