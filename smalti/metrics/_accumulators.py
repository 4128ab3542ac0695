"""What the metrics accumulate in: torchmetrics whose states are sums, so that shards add up to the whole.

Importing this imports torchmetrics, which takes over a second: only ``Metric.create`` does.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchmetrics import Metric


class ImageMeans(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """The mean over images of values that each image has, in double precision.

    Args:
        names: what the values are called.
    """

    full_state_update = False
    images: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.add_state(f"sum_{name}", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Adds name -> values with shape (B,)."""
        for name in self.names:
            setattr(self, f"sum_{name}", getattr(self, f"sum_{name}") + values[name].double().sum())
        self.images = self.images + len(values[self.names[0]])

    def compute(self) -> dict[str, Tensor]:
        """Name -> mean, a scalar; not a number without an image."""
        return {name: getattr(self, f"sum_{name}") / self.images for name in self.names}


class CodeCounts(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """How often each code of each codebook was chosen, in whole numbers, and on how many images.

    Args:
        summarize: turns codebook -> counts, int64 with shape (K,), and the number of images into named numbers.
    """

    full_state_update = False
    images: Tensor

    def __init__(self, summarize: Callable[[Mapping[str, Tensor], Tensor], dict[str, Tensor]]) -> None:
        super().__init__()
        self.summarize = summarize
        self.codebooks: tuple[str, ...] = ()
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def declare(self, sizes: Mapping[str, int]) -> None:
        """Begins to count codebooks: name -> number of codes. Ranks without a batch must know them, too."""
        for name, size in sizes.items():
            if name not in self.codebooks:
                zeros = torch.zeros(size, dtype=torch.int64, device=self.device)
                self.add_state(f"codes_{name}", zeros, dist_reduce_fx="sum")
        self.codebooks = tuple(dict.fromkeys((*self.codebooks, *sizes)))

    def update(self, indices: Tensor | None, sizes: Mapping[str, int]) -> None:
        """Counts tokens with shape (B, G, h, w) of codebooks of ``sizes``; None if there are none."""
        self.declare(sizes)
        if indices is None:
            return
        for group, (name, size) in enumerate(sizes.items()):
            counts = torch.bincount(indices[:, group].flatten(), minlength=size)
            setattr(self, f"codes_{name}", getattr(self, f"codes_{name}") + counts)
        self.images = self.images + indices.shape[0]

    def compute(self) -> dict[str, Tensor]:
        """Name -> number; nothing without a codebook."""
        return self.summarize({name: getattr(self, f"codes_{name}") for name in self.codebooks}, self.images)
