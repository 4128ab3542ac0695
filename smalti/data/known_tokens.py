"""Tokens whose distribution is known: a model of tokens is tried on them before there is a store."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from smalti.data import ImageSource
from smalti.registry import UserError

Count = Annotated[int, Field(ge=1, le=2**20)]
_CODEBOOKS: Mapping[str, int] = MappingProxyType({"codebook": 16})


class KnownTokens(ImageSource):
    """``indices`` (G, h, w) and a ``label``: each class prefers one code at each place of each codebook.

    The preferred code is there with probability ``certainty``, else any of the K, evenly, whatever the other tokens
    are. So it is known how many bits no model can do without: :attr:`entropy`.

    Args:
        codebooks: name -> number of codes K, in order.
        grid: height and width.
        num_classes: of which item i has class i modulo their number; 0: no column ``label``.
        count: number of items.
        certainty: of the preferred code.
        seed: of preferences and items; item i of two seeds differs, its preferences do not where ``preferences`` agree.
        preferences: seed of what each class prefers; the same for training and held-out items.

    Example:
        >>> source = KnownTokens(codebooks={"visual": 8, "semantic": 4}, grid=(2, 3), certainty=1.0)
        >>> source[0]["indices"].shape, source[3]["label"], source.entropy
        ((2, 2, 3), 3, {'visual': 0.0, 'semantic': 0.0})
    """

    columns: tuple[str, ...] = ("indices", "label")
    image_channels = 0
    factor: int | None = None

    def __init__(
        self,
        *,
        codebooks: Mapping[str, Count] = _CODEBOOKS,
        grid: tuple[Count, Count] = (4, 4),
        num_classes: Annotated[int, Field(ge=0, le=2**20)] = 10,
        count: Count = 256,
        certainty: Annotated[float, Field(ge=0.0, le=1.0)] = 0.9,
        seed: Annotated[int, Field(ge=0)] = 0,
        preferences: Annotated[int, Field(ge=0)] = 0,
    ) -> None:
        if not codebooks:
            raise UserError("codebooks={}: expected at least one")
        self.codebooks, self.grid = dict(codebooks), (grid[0], grid[1])
        self.num_classes, self.certainty, self.seed, self._count = num_classes, certainty, seed, count
        self.columns = self.columns_of({"num_classes": num_classes})
        self.names = tuple(f"item {seed}/{index}" for index in range(count))
        self.labels: Sequence[int] | None = [index % num_classes for index in range(count)] if num_classes else None
        drawn = np.random.Generator(np.random.PCG64([preferences, 1]))
        self._preferred = self._random(drawn, max(num_classes, 1))

    @classmethod
    def columns_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``indices``, and ``label`` if there are classes."""
        return cls.columns if options.get("num_classes", 10) else ("indices",)

    @property
    def entropy(self) -> dict[str, float]:
        """Codebook -> bits of a token whose class is known, which no model can do without."""
        found = {}
        for name, size in self.codebooks.items():
            other = (1.0 - self.certainty) / size
            shares = [self.certainty + other, *[other] * (size - 1)]
            found[name] = abs(sum(-share * math.log2(share) for share in shares if share > 0.0))
        return found

    def __len__(self) -> int:
        """Number of items."""
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index``: ``indices`` int64 (G, h, w), and its ``label``."""
        if not 0 <= index < self._count:
            raise IndexError(index)
        drawn = np.random.Generator(np.random.PCG64([self.seed, 2, index]))
        label = index % self.num_classes if self.num_classes else 0
        any_code = self._random(drawn, 1)[0]
        indices = np.where(drawn.random(any_code.shape) < self.certainty, self._preferred[label], any_code)
        return {"indices": indices, **({"label": label} if self.num_classes else {})}

    def _random(self, drawn: np.random.Generator, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Even tokens, int64 with shape (count, G, h, w)."""
        planes = [drawn.integers(0, size, (count, *self.grid), dtype=np.int64) for size in self.codebooks.values()]
        return np.stack(planes, axis=1)
