"""What a report on codebooks accumulates: counts of codes, of pairs of codes, and decibels without each codebook.

Importing this imports torchmetrics, which takes over a second: only ``Metric.create`` does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from smalti.metrics._accumulators import CodeCounts


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What was counted.

    Args:
        counts: index plane -> how often each code was chosen, int64 with shape (K,) or, of very many, (N,).
        sizes: index plane -> number of codes K.
        pairs: ``<a>-<b>`` -> codes a, codes b and how often they stood together, each with shape (N,).
        decibels: codebook -> mean PSNR of images with it at its mean, a scalar; those that were never made apart.
    """

    counts: Mapping[str, Tensor]
    sizes: Mapping[str, int]
    pairs: Mapping[str, tuple[Tensor, Tensor, Tensor]]
    decibels: Mapping[str, Tensor]


class ReportCounts(CodeCounts):
    """Counts of codes and of pairs of codes, and sums of decibels.

    Args:
        report: turns what was counted into named numbers.
    """

    def __init__(self, report: Callable[[Counted], dict[str, Tensor]]) -> None:
        super().__init__(lambda counts, sizes, images: report(self._counted(counts, sizes)))
        self.books: dict[str, str] = {}

    def declare(self, sizes: Mapping[str, int]) -> None:
        """Begins to count index planes: name -> number of codes; ``<codebook>.<step>`` is a plane of a codebook."""
        super().declare(sizes)
        self.declare_pairs(sizes)
        for book in {plane.partition(".")[0] for plane in sizes} - self.books.keys():
            self.books[book] = f"decibels_{book}"
            self.add_state(self.books[book], torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")
            setattr(self, self.books[book], torch.zeros(2, dtype=torch.float64, device=self.device))

    def update(
        self, indices: Tensor | None, sizes: Mapping[str, int], decibels: Mapping[str, Tensor] | None = None
    ) -> None:
        """Counts tokens (B, G, h, w), None if there are none; codebook -> dB of each image (B,) with it at its mean."""
        super().update(indices, sizes)
        self.count_pairs(indices, sizes)
        for book, values in (decibels or {}).items():
            total = getattr(self, self.books[book])
            setattr(self, self.books[book], total + torch.stack([values.double().sum(), total.new_tensor(len(values))]))

    def _counted(self, counts: Mapping[str, Tensor], sizes: Mapping[str, int]) -> Counted:
        sums = {book: getattr(self, state) for book, state in self.books.items()}
        known = {book: total[0] / total[1] for book, total in sums.items() if total[1]}
        return Counted(counts=counts, sizes=sizes, pairs=self.held_pairs(), decibels=known)
