"""Micro-batches of a source whose rows come in order only: the same function of their number as elsewhere.

Position p belongs to epoch p // n and is row p % n of that epoch's stream. Rows before the one that is wanted, and
those of other ranks and workers, are read and not decoded.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Protocol, TypeVar

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from smalti.data import UnreadableImageError
from smalti.registry import UserError

Row = TypeVar("Row")


class Streamed(Protocol):
    """What a source that is a stream has beside a length: ``streamed``, ``stream`` and ``item``."""

    streamed: bool

    def __len__(self) -> int:
        """Number of rows of an epoch."""

    def stream(self, epoch: int, seed: int, skip: int) -> Iterator[Mapping[str, Any]]:
        """Rows of an epoch as they are stored, in the order that (seed, epoch) gives, without the first ``skip``."""

    def item(self, row: Mapping[str, Any], place: str) -> dict[str, Any]:
        """A row decoded."""


class Rows:
    """Rows of an endless stream by their positions, which must not go back further than what was looked ahead.

    Args:
        source: a stream.
        seed: of its order.
    """

    def __init__(self, source: Streamed, seed: int) -> None:
        self.source, self.seed, self.size = source, seed, len(source)
        self._rows: Iterator[Mapping[str, Any]] = iter(())
        self._epoch, self._next = -1, 0  # what is open, and the position of the row that comes next
        self._ahead: dict[int, Mapping[str, Any]] = {}

    def __getitem__(self, position: int) -> Mapping[str, Any]:
        """The row at ``position``, as it is stored.

        Raises:
            UserError: if the stream ends before it should.
        """
        self._ahead = {at: row for at, row in self._ahead.items() if at >= position}
        if position not in self._ahead:
            self._ahead[position] = self._read(position)
        return self._ahead[position]

    def readable(self, position: int, unreadable: dict[int, str]) -> tuple[dict[str, Any], int]:
        """The item at ``position``, or the next that can be decoded, and its position; notes what was ``unreadable``.

        Raises:
            UserError: if none of a whole epoch can be decoded.
        """
        for other in range(position, position + self.size):
            try:
                return self.source.item(self[other], f"row {other % self.size} of epoch {other // self.size}"), other
            except UnreadableImageError as error:
                unreadable[other] = str(error)
        raise UserError(f"none of {self.size} images can be read; the last: {unreadable[other]}")

    def _read(self, position: int) -> Mapping[str, Any]:
        epoch, offset = divmod(position, self.size)
        if epoch != self._epoch or self._next > position:
            self._rows = self.source.stream(epoch, self.seed, offset)
            self._epoch, self._next = epoch, position
        for at in range(self._next, position + 1):
            row = next(self._rows, None)
            if row is None:
                raise UserError(f"the stream ended after {at % self.size} rows, it should have {self.size}: set rows")
        self._next = position + 1
        return row  # type: ignore[return-value]


def shuffled(rows: Iterable[Row], buffer: int, seed: int, epoch: int) -> Iterator[Row]:
    """The rows in an order that (seed, epoch) gives: the next is drawn among ``buffer`` of them, a new one replaces it.

    Raw words of PCG64 decide, whose stream numpy keeps for ever; see ``SampleStream.permutation``.

    >>> list(shuffled(range(6), 3, seed=0, epoch=0)) != list(shuffled(range(6), 3, seed=0, epoch=1))
    True
    """
    words = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    held: list[Row] = []
    for row in rows:
        if len(held) < buffer:
            held.append(row)
            continue
        place = words.random_raw() % buffer
        yield held[place]
        held[place] = row
    while held:
        place = words.random_raw() % len(held)
        held[place], held[-1] = held[-1], held[place]
        yield held.pop()


class StreamedBatches(IterableDataset[Any]):
    """Micro-batches ``start``, ``start + 1``, ... of one rank; of several workers each makes its own.

    Args:
        maker: ``maker(rows, number)`` gives micro-batch ``number``.
        source: a stream.
        seed: of its order.
        start: number of the first.
    """

    def __init__(self, maker: Any, source: Streamed, seed: int, start: int) -> None:
        self.maker, self.source, self.seed, self.start = maker, source, seed, start

    def __iter__(self) -> Iterator[Any]:
        """Endless; torch takes the batches of its workers in turn."""
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        rows = Rows(self.source, self.seed)
        return (self.maker(rows, number) for number in count(self.start + first, step))
