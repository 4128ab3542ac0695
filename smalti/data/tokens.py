"""A token store as training data: what a generator of tokens learns from. Its batches have no images."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from smalti.data import ImageSource
from smalti.data._fingerprint import Entries
from smalti.data._held_out import Part, Places
from smalti.registry import UserError
from smalti.tokens.description import STORE, Tokenizer, read_description
from smalti.tokens.layout import INDICES
from smalti.tokens.store import TokenStore

Views = Literal["random", "first", "all"]


class Tokens(ImageSource):
    """The images of a token store as ``indices`` int64 (G, h, w), or ``mean`` and ``logvar`` (C, h, w), with columns.

    Args:
        path: the folder of the store.
        views: of an image with several: ``random`` draws one anew in every epoch, keyed as augmentation is, and reads
            the first where nothing is drawn (validation); ``first``; ``all``: every view is an item of its own.
        part: ``held_out``: images 0, n, 2 n, ... of the store; ``train``: the others; ``all``.
        every: n, of ``part``.

    Raises:
        UserError: if there is no such store, or it is damaged or not finished.
    """

    image_channels = 0
    locations = ("path",)

    def __init__(
        self, path: str, views: Views = "random", part: Part = "all", every: Annotated[int, Field(ge=2)] = 20
    ) -> None:
        if views not in {"random", "first", "all"}:
            raise ValueError(f"views={views!r}: expected 'random', 'first' or 'all'")
        self.store = TokenStore.open(path)
        self._views, self._part, self._every = views, part, every
        self._places = Places(len(self.store), part, every)
        self._copies = len(self.store.views) if views == "all" else 1
        self.columns = _columns(self.store.description.arrays, self.store.columns)
        labels: Any = self.store.columns.get("label")
        self.labels = None if labels is None else _Repeated(labels, self._places, self._copies)
        names: Any = self.store.names if self._copies == 1 and part == "all" else _Names(self)
        self.names = names

    @classmethod
    def columns_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """What ``store.json`` says; whatever it may be, if it cannot be read: that is said when the store is opened."""
        try:
            description = read_description(Path(str(options.get("path", ""))).expanduser())
        except (UserError, OSError):
            return (INDICES, "*")
        return _columns(description.arrays, description.columns)

    @property
    def codebooks(self) -> Mapping[str, int]:
        """Index plane -> number of codes, in order; empty for a continuous bottleneck."""
        return self.store.codebooks

    @property
    def tokenizer(self) -> Tokenizer:
        """Whose tokens they are: name, path and hash."""
        return self.store.description.tokenizer

    @property
    def grid(self) -> tuple[int, int]:
        """The grid (h, w) of all images.

        Raises:
            UserError: if they have several.
        """
        if len(self.store.grids) != 1:
            grids = ", ".join(f"{height} x {width}" for height, width in self.store.grids[:3])
            raise UserError(f"{self.store.folder}: images of {len(self.store.grids)} grids ({grids}): expected one")
        return self.store.grids[0]

    @property
    def factor(self) -> int:
        """Pixels of a position along a side."""
        return self.store.factor

    def __len__(self) -> int:
        """Number of images, or of views of all of them."""
        return len(self._places) * self._copies

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index``: its first view, or its own where every view is an item."""
        place, view = divmod(index, self._copies)
        return self._item(self._places[place], view)

    def draw(self, index: int, rng: random.Random) -> dict[str, Any]:
        """Item ``index`` with a view that ``rng`` draws, where views are random and there are several."""
        several = self._views == "random" and len(self.store.views) > 1
        return self._item(self._places[index], rng.randrange(len(self.store.views))) if several else self[index]

    def fingerprint(self) -> Mapping[str, Entries]:
        """The shards of the store and its tables, with their hashes."""
        description = self.store.description
        shards = [(f"shard {number}", shard.sha256) for number, shard in enumerate(description.shards)]
        tables = list(description.files.items())
        return {"shards": shards, "tables": tables, STORE: [("tokenizer", self.tokenizer.hash)]}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels to a worker as the name of its folder."""
        return Tokens, (str(self.store.folder), self._views, self._part, self._every)

    def name_of(self, index: int) -> str:
        """The name of the image of item ``index``; where every view is an item, a colon and the view behind it."""
        place, view = divmod(index, self._copies)
        name = str(self.store.names[self._places[place]])
        return f"{name}:{self.store.views[view]}" if self._copies > 1 else name

    def _item(self, image: int, view: int) -> dict[str, Any]:
        read = self.store.read(image, view)
        if INDICES in read:
            self.store.check_codes(read[INDICES])
        # Copies in a type that networks take: a view of the file cannot be written to.
        item: dict[str, Any] = {
            name: value.astype(np.int64 if name == INDICES else np.float32) for name, value in read.items()
        }
        return item | self.store.values(image)


class _Repeated(Sequence[Any]):
    """A column as plain numbers or text, at some places, each so many times, read when it is asked for."""

    def __init__(self, values: Any, places: Sequence[int], times: int) -> None:
        self._values, self._places, self._times = values, places, times

    def __len__(self) -> int:
        return len(self._places) * self._times

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        if isinstance(place, range):
            return [self[number] for number in place]
        value = self._values[self._places[place // self._times]]
        return value.item() if isinstance(value, np.generic) else value


class _Names(Sequence[str]):
    """Names of the items of a source, read when they are asked for."""

    def __init__(self, source: Tokens) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        place = range(len(self))[index]
        if isinstance(place, range):
            return tuple(self[number] for number in place)
        return self._source.name_of(place)


def _columns(arrays: Sequence[str], columns: Mapping[str, Any]) -> tuple[str, ...]:
    return (*(arrays or (INDICES,)), *columns)
