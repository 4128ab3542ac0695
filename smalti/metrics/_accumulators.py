"""What the metrics accumulate in: torchmetrics whose states are sums, so that shards add up to the whole.

Importing this imports torchmetrics, which takes over a second: only ``Metric.create`` does.
"""

from collections.abc import Callable, Mapping
from itertools import combinations

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
        """Counts tokens with shape (B, G, h, w) of codebooks of ``sizes``, but for -1, no code; None: no tokens."""
        self.declare(sizes)
        if indices is None:
            return
        for group, (name, size) in enumerate(sizes.items()):
            tokens = indices[:, group].flatten()
            counts = torch.bincount(tokens[tokens >= 0], minlength=size)
            setattr(self, f"codes_{name}", getattr(self, f"codes_{name}") + counts)
        self.images = self.images + indices.shape[0]

    def compute(self) -> dict[str, Tensor]:
        """Name -> number; nothing without a codebook."""
        return self.summarize({name: getattr(self, f"codes_{name}") for name in self.codebooks}, self.images)


class PairCounts(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """How often two codes of two codebooks stood at the same position; only pairs that occurred are held.

    Args:
        summarize: turns ``<a>-<b>`` -> (tokens a, tokens b, counts), each with shape (N,), into named numbers.
    """

    full_state_update = False

    def __init__(self, summarize: Callable[[Mapping[str, tuple[Tensor, Tensor, Tensor]]], dict[str, Tensor]]) -> None:
        super().__init__()
        self.summarize = summarize
        self.pairs: dict[tuple[str, str], int] = {}

    def declare(self, sizes: Mapping[str, int]) -> None:
        """Begins to count the pairs of codebooks: name -> number of codes. Ranks without a batch must know them."""
        for pair in combinations(sizes, 2):
            if pair not in self.pairs:
                self.pairs[pair] = sizes[pair[1]]
                for kind in ("keys", "counts"):
                    name = f"{kind}_{pair[0]}_{pair[1]}"
                    self.add_state(name, [], dist_reduce_fx="cat")
                    setattr(self, name, [torch.zeros(0, dtype=torch.int64, device=self.device)])

    def update(self, indices: Tensor | None, sizes: Mapping[str, int]) -> None:
        """Counts tokens with shape (B, G, h, w) of codebooks of ``sizes``; None if there are none."""
        self.declare(sizes)
        if indices is None:
            return
        order = list(sizes)
        for one, two in self.pairs:
            first, second = (indices[:, order.index(name)].flatten() for name in (one, two))
            both = (first >= 0) & (second >= 0)
            first, second = first[both], second[both]
            keys = first * self.pairs[one, two] + second
            held = self._held(one, two)
            keys, counts = _merged(torch.cat([held[0], keys]), torch.cat([held[1], torch.ones_like(keys)]))
            setattr(self, f"keys_{one}_{two}", [keys])
            setattr(self, f"counts_{one}_{two}", [counts])

    def _held(self, one: str, two: str) -> tuple[Tensor, Tensor]:
        keys, counts = (getattr(self, f"{kind}_{one}_{two}") for kind in ("keys", "counts"))
        empty = torch.zeros(0, dtype=torch.int64, device=self.device)
        # A list before ranks are gathered, a tensor after.
        keys, counts = (torch.cat([empty, *v]) if isinstance(v, list) else v for v in (keys, counts))
        return keys, counts

    def compute(self) -> dict[str, Tensor]:
        """Name -> number; nothing with fewer than two codebooks."""
        found = {}
        for (one, two), size in self.pairs.items():
            keys, counts = _merged(*self._held(one, two))
            found[f"{one}-{two}"] = (keys // size, keys % size, counts)
        return self.summarize(found)


def _merged(keys: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Different keys, sorted, and the sums of their counts."""
    kinds, where = torch.unique(keys, return_inverse=True)
    return kinds, torch.zeros_like(kinds).index_add_(0, where, counts)
