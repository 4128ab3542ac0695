"""How much of a codebook is in use: integer counts over a window of updates, summed over ranks."""

import torch
from torch import Tensor, nn

from smalti.nn.distributed import all_reduce_sum


class UsageWindow(nn.Module):
    """Counts chosen codes over the last ``window`` updates, or the last half of them just after a half is full.

    Two halves of counts instead of one ring of indices: the window does not depend on the batch size, the initial zeros
    are no codes, and every rank reports the same. Counting needs no synchronisation with the host.

    Args:
        size: number of codes K.
        window: number of updates.
    """

    counts: Tensor
    unused: Tensor
    updates: Tensor

    def __init__(self, size: int, window: int) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"usage_window={window}: expected a positive number of updates")
        self.span = max(1, window // 2)
        self.register_buffer("counts", torch.zeros(2, size, dtype=torch.int64))
        self.register_buffer("unused", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def observe(self, indices: Tensor) -> None:
        """Adds the codes that all ranks chose in one update: int64 of any shape, negative for no code."""
        counts = torch.zeros_like(self.unused)
        indices = indices.flatten()
        counts.index_add_(0, indices.clamp(min=0), (indices >= 0).to(counts.dtype))
        self.add(all_reduce_sum(counts))

    @torch.no_grad()
    def add(self, counts: Tensor) -> None:
        """Adds the all-reduced ``counts`` of one update, int64 with shape (K,)."""
        full = (self.updates > 0) & (self.updates % self.span == 0)
        shifted = torch.stack([torch.zeros_like(counts), self.counts[0]])
        self.counts.copy_(torch.where(full, shifted, self.counts))
        self.counts[0] += counts
        self.unused.copy_(torch.where(counts > 0, 0, self.unused + 1))
        self.updates += 1

    @torch.no_grad()
    def measure(self) -> dict[str, Tensor]:
        """``usage``, the fraction of codes chosen at all, and ``perplexity``, exp of the entropy of their frequencies.

        Scalars on the device of the counts; both are 0 before the first update.
        """
        counts = self.counts.sum(dim=0).double()
        frequency = counts / counts.sum().clamp(min=1)
        perplexity = torch.exp(-torch.xlogy(frequency, frequency).sum()) * (counts.sum() > 0)
        return {"usage": (counts > 0).double().mean(), "perplexity": perplexity}
