"""Data: where images come from, how they are cropped, and the seeded order in which they are seen."""

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from smalti.data._fingerprint import Entries, items_of
from smalti.registry import Part, UserError

MASK_COLUMNS = frozenset({"mask", "alpha", "weights"})
"""Image columns with one channel in [0, 1]; every other image column has colours in [-1, 1]."""


class UnreadableImageError(UserError):
    """One item of a source cannot be decoded; a training loader takes the next one, an evaluation leaves it out."""


@runtime_checkable
class Items(Protocol):
    """What a data source from elsewhere must have; it may have whatever ``ImageSource`` has, too."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """Item ``index``: column name -> Pillow image, array, number or string."""


class ImageSource(Part):
    """Base of all data sets: numbered items, each a mapping of column name to Pillow image, array, number or string.

    ``columns`` are the names every item has, ``image`` among them unless the items are no images; ``names`` are the
    names of the items, for reports; ``labels`` are their classes, where these are known before items are read. Reading
    an item is deterministic.
    ``locations`` are the options that say where the items lie and not what they are: a run may be resumed with others.
    """

    kind = "data source"
    package = "smalti.data"
    stand_ins = (Items,)
    columns: tuple[str, ...] = ("image",)
    names: tuple[str, ...] = ()
    labels: Sequence[int] | None = None
    image_channels: int = 3
    locations: tuple[str, ...] = ()

    @classmethod
    def columns_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns that a source with these options will have, before anything is read; ``*``: perhaps others."""
        return cls.columns

    @classmethod
    def is_streamed(cls, options: Mapping[str, Any]) -> bool:
        """Whether a source with these options gives its items in order only, for training; see ``Streamed``."""
        return False

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index``: ``image`` is a Pillow image, other columns as declared.

        Raises:
            UnreadableImageError: if this one item cannot be decoded.
        """

    def draw(self, index: int, rng: random.Random) -> dict[str, Any]:
        """Item ``index`` as training sees it: a source that has several views of one draws a view with ``rng``.

        What is drawn depends on (seed, epoch, index) alone, as the augmentation that follows does.
        """
        return self[index]

    def place_of(self, index: int) -> str:
        """Where item ``index`` is described, for messages: its name, or a file and a row."""
        return self.names[index] if self.names else f"item {index}"

    def fingerprint(self) -> Mapping[str, Entries]:
        """What the source consists of: a run is not resumed silently on a source that says something else.

        It is told without decoding anything, at every start of a run, in the order of the items.

        Returns:
            Group -> pairs of a name and its mark, a size in bytes or any text that changes with the content. By
            default ``items``: the names with the labels, as far as these are known.
        """
        return items_of(self)
