"""What the metrics accumulate in: torchmetrics whose states are sums, so that shards add up to the whole.

Importing this imports torchmetrics, which takes over a second: only ``Metric.create`` does.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torchmetrics import Metric

from smalti.registry import UserError

MOST_LISTED = 2**24  # codes that are counted one by one
MOST_PAIRS = 2**62


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


class NamedMeans(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """Means over images of values of which some may never come: those are left out, the first one is always there.

    Args:
        name: of the value that all images have.
    """

    full_state_update = False

    def __init__(self, name: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.declare([name])

    def declare(self, names: Sequence[str]) -> None:
        """Says what values there may be. Ranks without a batch must know them, too."""
        for name in names:
            if name not in self.names:
                self.names.append(name)
                for part, kind in (("sum", torch.float64), ("count", torch.int64)):
                    key = f"{part}_{_word(name)}"
                    self.add_state(key, torch.zeros((), dtype=kind), dist_reduce_fx="sum")
                    setattr(self, key, torch.zeros((), dtype=kind, device=self.device))

    def update(self, values: Mapping[str, Tensor]) -> None:
        """Adds name -> values with shape (B,)."""
        self.declare(list(values))
        for name, of in values.items():
            for part, more in (("sum", of.double().sum()), ("count", len(of))):
                key = f"{part}_{_word(name)}"
                setattr(self, key, getattr(self, key) + more)

    def compute(self) -> dict[str, Tensor]:
        """Name -> mean, a scalar; not a number without an image."""
        means = {
            name: getattr(self, f"sum_{_word(name)}") / getattr(self, f"count_{_word(name)}") for name in self.names
        }
        return {name: mean for name, mean in means.items() if name == self.names[0] or not mean.isnan()}


class PooledDecibels(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """10 log10(R^2 / mean squared error) over all pixels, in double precision.

    Args:
        data_range: R.
    """

    full_state_update = False
    errors: Tensor
    pixels: Tensor

    def __init__(self, data_range: float) -> None:
        super().__init__()
        self.data_range = data_range
        self.add_state("errors", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("pixels", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, errors: Tensor, pixels: int) -> None:
        """Adds the sum of squared errors of so many numbers."""
        self.errors = self.errors + errors
        self.pixels = self.pixels + pixels

    def compute(self) -> Tensor:
        """The decibels, a scalar; infinite for equal images."""
        return 10.0 * torch.log10(self.data_range**2 * self.pixels / self.errors)


class _Counts(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """Counts of what occurred, by name: of few kinds one by one, of many only those that occurred."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.pairs: dict[tuple[str, str], int] = {}

    def hold(self, name: str, kinds: int | None) -> None:
        """Begins to count under a name: numbers below ``kinds``, or any if it is None."""
        if kinds is not None:
            self.add_state(f"counts_{name}", torch.zeros(kinds, dtype=torch.int64), dist_reduce_fx="sum")
            setattr(self, f"counts_{name}", torch.zeros(kinds, dtype=torch.int64, device=self.device))
            return
        for part in ("keys", "counts"):
            self.add_state(f"{part}_{name}", [], dist_reduce_fx="cat")
            setattr(self, f"{part}_{name}", [torch.zeros(0, dtype=torch.int64, device=self.device)])

    def count(self, name: str, keys: Tensor) -> None:
        """Counts whole numbers, int64 with shape (N,)."""
        if not hasattr(self, f"keys_{name}"):
            held = getattr(self, f"counts_{name}")
            setattr(self, f"counts_{name}", held + torch.bincount(keys, minlength=len(held)))
            return
        known, counts = self.held(name)
        keys, counts = _merged(torch.cat([known, keys]), torch.cat([counts, torch.ones_like(keys)]))
        setattr(self, f"keys_{name}", [keys])
        setattr(self, f"counts_{name}", [counts])

    def held(self, name: str) -> tuple[Tensor, Tensor]:
        """Numbers that occurred and how often, both with shape (N,); of few kinds also those that did not."""
        counts = getattr(self, f"counts_{name}")
        if not hasattr(self, f"keys_{name}"):
            return torch.arange(len(counts), device=counts.device), counts
        empty = torch.zeros(0, dtype=torch.int64, device=self.device)
        # A list before ranks are gathered, a tensor after.
        parts = (getattr(self, f"keys_{name}"), counts)
        keys, counts = (torch.cat([empty, *v]) if isinstance(v, list) else v for v in parts)
        return _merged(keys, counts)

    def declare_pairs(self, sizes: Mapping[str, int]) -> None:
        """Begins to count the pairs of codebooks: name -> number of codes.

        Raises:
            UserError: if pairs of codes are too many to be numbered.
        """
        for one, two in combinations(sizes, 2):
            if (one, two) in self.pairs:
                continue
            if sizes[one] * sizes[two] > MOST_PAIRS:
                raise UserError(
                    f"{one} and {two} have {sizes[one] * sizes[two]:,} pairs of codes: expected at most 2^62"
                )
            self.pairs[one, two] = sizes[two]
            self.hold(_pair(one, two), None)

    def count_pairs(self, indices: Tensor | None, sizes: Mapping[str, int]) -> None:
        """Counts pairs of tokens with shape (B, G, h, w) of codebooks of ``sizes``; None if there are none."""
        order = list(sizes)
        for one, two in self.pairs if indices is not None else ():
            first, second = (indices[:, order.index(name)].flatten() for name in (one, two))  # type: ignore[index]
            both = (first >= 0) & (second >= 0)
            self.count(_pair(one, two), first[both] * self.pairs[one, two] + second[both])

    def held_pairs(self) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """``<a>-<b>`` -> codes a, codes b, and how often they stood together, each with shape (N,)."""
        found = {}
        for (one, two), size in self.pairs.items():
            keys, counts = self.held(_pair(one, two))
            found[f"{one}-{two}"] = (keys // size, keys % size, counts)
        return found


class CodeCounts(_Counts):
    """How often each code of each codebook was chosen, in whole numbers, and on how many images.

    Args:
        summarize: turns codebook -> counts, int64, of all codes or of those that were chosen; codebook -> number of
            codes; and the number of images into named numbers.
    """

    images: Tensor

    def __init__(
        self, summarize: Callable[[Mapping[str, Tensor], Mapping[str, int], Tensor], dict[str, Tensor]]
    ) -> None:
        super().__init__()
        self.summarize = summarize
        self.sizes: dict[str, int] = {}
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def declare(self, sizes: Mapping[str, int]) -> None:
        """Begins to count codebooks: name -> number of codes. Ranks without a batch must know them, too."""
        for name in sizes.keys() - self.sizes.keys():
            self.hold(_word(name), sizes[name] if sizes[name] <= MOST_LISTED else None)
        self.sizes |= sizes

    def update(self, indices: Tensor | None, sizes: Mapping[str, int]) -> None:
        """Counts tokens with shape (B, G, h, w) of codebooks of ``sizes``, but for -1, no code; None: no tokens."""
        self.declare(sizes)
        if indices is None:
            return
        for group, name in enumerate(sizes):
            tokens = indices[:, group].flatten()
            self.count(_word(name), tokens[tokens >= 0])
        self.images = self.images + indices.shape[0]

    def compute(self) -> dict[str, Tensor]:
        """Name -> number; nothing without a codebook."""
        return self.summarize({name: self.held(_word(name))[1] for name in self.sizes}, self.sizes, self.images)


class PairCounts(_Counts):
    """How often two codes of two codebooks stood at the same position; only pairs that occurred are held.

    Args:
        summarize: turns ``<a>-<b>`` -> (tokens a, tokens b, counts), each with shape (N,), into named numbers.
    """

    def __init__(self, summarize: Callable[[Mapping[str, tuple[Tensor, Tensor, Tensor]]], dict[str, Tensor]]) -> None:
        super().__init__()
        self.summarize = summarize

    def declare(self, sizes: Mapping[str, int]) -> None:
        """Begins to count the pairs of codebooks: name -> number of codes. Ranks without a batch must know them.

        Raises:
            UserError: if pairs of codes are too many to be numbered.
        """
        self.declare_pairs(sizes)

    def update(self, indices: Tensor | None, sizes: Mapping[str, int]) -> None:
        """Counts tokens with shape (B, G, h, w) of codebooks of ``sizes``; None if there are none."""
        self.declare(sizes)
        self.count_pairs(indices, sizes)

    def compute(self) -> dict[str, Tensor]:
        """Name -> number; nothing with fewer than two codebooks."""
        return self.summarize(self.held_pairs())


def _pair(one: str, two: str) -> str:
    """A name for a state that no other pair has, nor a codebook: ``a`` and ``b_c`` are not ``a_b`` and ``c``."""
    return f"{len(one)}_{_word(one)}_{_word(two)}"


def _word(name: str) -> str:
    """A name for a state: those of the steps of a codebook hold a dot."""
    return name.replace(".", "__").replace("/", "___")


def _merged(keys: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Different keys, sorted, and the sums of their counts."""
    kinds, where = torch.unique(keys, return_inverse=True)
    return kinds, torch.zeros_like(kinds).index_add_(0, where, counts)
