"""Class labels: whether they fit the number of classes, before a network is asked to look one up.

An index outside of a table of embeddings is an obscure error on a CPU, and on a GPU one that ends the whole process.
"""

import operator
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smalti.data import ImageSource
from smalti.registry import UserError

LABEL = "label"


def with_classes(source: Any, num_classes: int, place: str) -> Any:
    """``source``, whose labels are known to be classes: checked now where they are known, else with every item.

    Args:
        source: a data source.
        num_classes: number of classes of the networks; 0: nobody looks at labels.
        place: of the source in the recipe, for messages.

    Raises:
        UserError: naming the first label that is no class, and where it stands.
    """
    if not num_classes:
        return source
    known: Sequence[Any] | None = getattr(source, "labels", None)
    if known is None:
        return _Checked(source, num_classes, place)
    wrong = [index for index, label in enumerate(known) if not _is_class(label, num_classes)]
    if wrong:
        more = f"; so are {len(wrong) - 1} more of {len(known)}" if len(wrong) > 1 else ""
        whole = [int(label) for label in known if _is_whole(label)]
        from_one = len(whole) == len(known) and min(whole) == 1 and max(whole) == num_classes
        hint = "; the labels seem to count from 1" if from_one else ""
        raise UserError(f"{place}: {_refused(_place_of(source, wrong[0]), known[wrong[0]], num_classes)}{more}{hint}")
    return source


class _Checked(ImageSource):
    """A source whose labels are checked as its items are read, on the CPU and before a batch is made of them.

    Args:
        source: where items come from.
        num_classes: number of classes.
        place: of the source in the recipe.
    """

    def __init__(self, source: Any, num_classes: int, place: str) -> None:
        self.source, self.num_classes, self.place = source, num_classes, place
        self.names = getattr(source, "names", ())
        self.columns = getattr(source, "columns", self.columns)
        self.image_channels = getattr(source, "image_channels", self.image_channels)
        self.streamed = getattr(source, "streamed", False)

    def __len__(self) -> int:
        """Number of items."""
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index`` of the source, its label a plain number.

        Raises:
            UserError: if it has no label, or one that is no class.
        """
        return self._checked(self.source[index], _place_of(self.source, index))

    def draw(self, index: int, rng: random.Random) -> dict[str, Any]:
        """Item ``index`` as the source draws it.

        Raises:
            UserError: as for items.
        """
        draw = getattr(self.source, "draw", None)
        return self._checked(self.source[index] if draw is None else draw(index, rng), _place_of(self.source, index))

    def stream(self, epoch: int, seed: int, skip: int) -> Iterator[Mapping[str, Any]]:
        """Rows of a source that is a stream."""
        rows: Iterator[Mapping[str, Any]] = self.source.stream(epoch, seed, skip)
        return rows

    def item(self, row: Mapping[str, Any], place: str) -> dict[str, Any]:
        """A row of a stream, its label a plain number.

        Raises:
            UserError: if it has no label, or one that is no class.
        """
        return self._checked(self.source.item(row, place), place)

    def _checked(self, item: Mapping[str, Any], where: str) -> dict[str, Any]:
        label = item.get(LABEL)
        if not _is_class(label, self.num_classes):
            raise UserError(f"{self.place}: {_refused(where, label, self.num_classes)}")
        return {**item, LABEL: operator.index(label)}  # type: ignore[arg-type]


def _place_of(source: Any, index: int) -> str:
    place_of = getattr(source, "place_of", None)
    return str(place_of(index)) if place_of is not None else f"item {index}"


def _refused(where: str, label: Any, num_classes: int) -> str:
    expected = f"expected a whole number from 0 to {num_classes - 1}, num_classes is {num_classes}"
    return f"{where}: no label: {expected}" if label is None else f"{where}: label {label!r}: {expected}"


def _is_whole(label: Any) -> bool:
    if isinstance(label, bool):
        return False
    try:
        operator.index(label)
    except TypeError:
        return False
    return True


def _is_class(label: Any, num_classes: int) -> bool:
    return _is_whole(label) and 0 <= operator.index(label) < num_classes
