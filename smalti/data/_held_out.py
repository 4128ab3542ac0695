"""Which items of a source are held out: every so-many-th, from the first, in the order of the source."""

from collections.abc import Sequence
from typing import Literal

Part = Literal["all", "train", "held_out"]


class Places(Sequence[int]):
    """Numbers of the items of a part, none of them listed.

    Args:
        count: items of the source.
        part: ``held_out``: items 0, n, 2 n, ... of ``every`` n; ``train``: the others; ``all``.
        every: n.

    Example:
        >>> list(Places(7, "held_out", 3)), list(Places(7, "train", 3)), len(Places(7, "all", 3))
        ([0, 3, 6], [1, 2, 4, 5], 7)
    """

    def __init__(self, count: int, part: Part, every: int) -> None:
        if part not in {"all", "train", "held_out"}:
            raise ValueError(f"part={part!r}: expected 'all', 'train' or 'held_out'")
        if every < 2:
            raise ValueError(f"every={every!r}: expected a whole number of at least 2")
        self._part, self._every = part, every
        held_out = -(-count // every)
        self._count = {"all": count, "held_out": held_out, "train": count - held_out}[part]

    def __len__(self) -> int:
        """How many there are."""
        return self._count

    def __getitem__(self, index: int) -> int:  # type: ignore[override]  # nobody asks for slices
        """The number in the source of item ``index`` of the part.

        Raises:
            IndexError: if there is no such item.
        """
        place = range(self._count)[index]
        if self._part == "train":
            return place + place // (self._every - 1) + 1
        return place if self._part == "all" else place * self._every
