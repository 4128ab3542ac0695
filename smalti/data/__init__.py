"""Data: where images come from, how they are cropped, and the seeded order in which they are seen."""

from abc import abstractmethod
from typing import Any, ClassVar

from smalti.registry import Part


class ImageSource(Part):
    """Base of all data sets: numbered items, each a mapping of column name to Pillow image, array, number or string.

    ``columns`` are the names every item has, ``image`` among them. Reading an item is deterministic.
    """

    kind = "data source"
    package = "smalti.data"
    columns: tuple[str, ...] = ("image",)
    names: tuple[str, ...] = ()
    image_channels: ClassVar[int] = 3

    @abstractmethod
    def __len__(self) -> int:
        """Number of items."""

    @abstractmethod
    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index``: ``image`` is a Pillow image, other columns as declared."""
