"""ActNorm: a scale and shift per channel, set once so that the first batch comes out with mean 0 and deviation 1."""

import torch
from torch import Tensor, nn

from smalti.nn.distributed import all_reduce_sum
from smalti.nn.starting import StartsOnData


class ActNorm(StartsOnData):
    """y = scale (x + loc) for x with shape (B, C, H, W) (Kingma & Dhariwal, arXiv:1807.03039).

    The first forward pass in training mode sets loc = -mean and scale = 1 / (std + 1e-6) from its batch; over several
    processes from all their batches together, so that all start equal. Both are ordinary parameters from then on.

    Args:
        channels: C.
    """

    initialized: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        if self.waits_for_data():
            self._initialize(x.detach())
        return self.scale * (x + self.loc)

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        x = x.to(self.loc.dtype)
        channels = x.shape[1]
        count = all_reduce_sum(x.new_tensor(x.numel() / channels))
        mean = all_reduce_sum(x.sum(dim=(0, 2, 3))) / count
        squares = all_reduce_sum((x - mean.view(1, -1, 1, 1)).square().sum(dim=(0, 2, 3)))
        std = (squares / (count - 1.0)).sqrt()
        if not (torch.isfinite(mean) & torch.isfinite(std)).all():
            return  # the next batch will do
        self.loc.copy_(-mean.view(1, -1, 1, 1))
        self.scale.copy_(1.0 / (std.view(1, -1, 1, 1) + 1e-6))
        self.note_start()
