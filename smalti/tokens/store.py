"""Reading a token store: any image by its number, out of memory-mapped shards of any total size."""

import hashlib
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smalti.registry import UserError, suggest
from smalti.tokens.columns import Texts, check_length, map_bytes, read_array, read_texts
from smalti.tokens.description import STORE, Description, read_description
from smalti.tokens.layout import Grid, Layout

Array = np.ndarray
View = int | str
INDEX, NAMES = "index.npy", "names.bin"
SHARDS = "shards"
MOST_MAPPED = 8192  # files at a time; systems allow some tens of thousands
_BLOCK = 2**20


def shard_path(folder: Path, number: int) -> Path:
    """Where shard ``number`` lies."""
    return folder / SHARDS / f"{number:05d}.bin"


def column_path(folder: Path, number: int, kind: str) -> Path:
    """Where column ``number`` lies."""
    return folder / f"column-{number}.{'bin' if kind == 'text' else 'npy'}"


class TokenStore:
    """A finished store of n images; ``store[i]`` is a mapping, i from 0 to n - 1.

    ``indices`` (G, h, w) whole numbers of the widest type of its codebooks, or ``mean`` and ``logvar`` (C, h, w), or
    ``latent``; ``name``, ``label`` and whatever other columns it has. Arrays may be views of the file: copy them to
    write to them. Only what is asked for is read.

    Args:
        folder: where it lies.
        description: what it says of itself; see ``open``.
    """

    def __init__(self, folder: Path, description: Description) -> None:
        self.folder, self.description = folder, description
        self.views, self._count = description.views, description.count
        self._layouts = {grid: description.layout(grid) for grid in description.grids}
        for number, shard in enumerate(description.shards):
            check_length(shard_path(folder, number), self._length(number) if shard.rows else 0)
        self._index = read_array(folder / INDEX, (self._count, 2), "<i4")
        self.names: Sequence[str] = read_texts(folder / NAMES, self._count)
        self.columns = {
            name: self._column(number, kind) for number, (name, kind) in enumerate(description.columns.items())
        }
        self._getters = [
            (name, column.__getitem__ if isinstance(column, Texts) else column.item)
            for name, column in self.columns.items()
        ]
        self._places = self._index.reshape(-1)
        self._mapped: dict[int, tuple[Array, Layout]] = {}

    @classmethod
    def open(cls, path: str | Path, tokenizer_hash: str | None = None) -> "TokenStore":
        """The store in a folder.

        Args:
            path: the folder.
            tokenizer_hash: of the tokenizer that its tokens are for.

        Raises:
            UserError: if there is none, it is damaged, not finished, of another version, or of another tokenizer.
        """
        folder = Path(path).expanduser()
        store = cls(folder, read_description(folder))
        if tokenizer_hash is not None:
            store.require(tokenizer_hash)
        return store

    def require(self, tokenizer_hash: str) -> None:
        """Refuses another tokenizer than that of the store.

        Raises:
            UserError: with both hashes.
        """
        own = self.description.tokenizer
        if own.hash != tokenizer_hash:
            raise UserError(
                f"{self.folder}: its tokens are of {own.path} (weights {own.hash[:16]}), not of the tokenizer with "
                f"weights {tokenizer_hash[:16]}"
            )

    @property
    def codebooks(self) -> dict[str, int]:
        """Index plane -> number of codes, in order; empty for a continuous bottleneck."""
        return self.description.codebooks

    @property
    def factor(self) -> int:
        """Pixels of a position along a side."""
        return self.description.factor

    @property
    def grids(self) -> tuple[Grid, ...]:
        """The grids (h, w) that its images have."""
        return self.description.grids

    def __len__(self) -> int:
        """Number of images."""
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Image ``index``: its first view and its columns.

        Raises:
            IndexError: if there is no such image.
        """
        item: dict[str, Any] = self._one(index, 0)
        for name, value_of in self._getters:
            item[name] = value_of(index)
        item["name"] = self.names[index]
        return item

    def values(self, index: int) -> dict[str, Any]:
        """The columns of image ``index``, as plain numbers and text."""
        return {name: value_of(index) for name, value_of in self._getters}

    def __reduce__(self) -> tuple[Any, ...]:
        """Travels to another process as the name of its folder."""
        return TokenStore, (self.folder, self.description)

    def read(self, index: int | Sequence[int] | Array, view: View | Sequence[int] | Array = 0) -> dict[str, Array]:
        """One view of one image, or of each of B images of one grid, without columns.

        Args:
            index: a number, or B of them.
            view: the number or the name of a view, or B numbers.

        Returns:
            ``indices`` (G, h, w) or (B, G, h, w); or arrays (C, h, w) or (B, C, h, w).

        Raises:
            IndexError: if there is no such image or view.
            UserError: if there is no view of that name, or the images differ in grid.
        """
        number = self.view_number(view) if isinstance(view, (int, str)) else np.asarray(view)
        if isinstance(index, (int, np.integer)):
            return self._one(operator.index(index), number if isinstance(number, int) else operator.index(number[0]))
        return self._many(np.asarray(index, dtype=np.int64), number)

    def view_number(self, view: View) -> int:
        """The number of a view.

        Raises:
            IndexError: if there is no such number.
            UserError: if there is no such name.
        """
        if isinstance(view, str):
            if view not in self.views:
                raise UserError(f"view={view!r}: no such view in {self.folder}{suggest(view, self.views)}")
            return self.views.index(view)
        if not 0 <= view < len(self.views):
            raise IndexError(f"view={view}: expected 0 to {len(self.views) - 1}")
        return view

    def check_codes(self, indices: Array) -> None:
        """Whether tokens (..., G, h, w) are codes of their codebooks: damage may make others of them.

        Raises:
            UserError: naming the first codebook of which one is none.
        """
        if indices.dtype.kind == "i" and indices.min() < 0:
            raise UserError(f"{self.folder}: damaged: a token {indices.min()}; `smalti tokens --check` says where")
        highest = indices.max(axis=(-2, -1)).reshape(-1, len(self.codebooks)).max(axis=0).tolist()
        for most, (name, size) in zip(highest, self.codebooks.items(), strict=True):
            if most >= size:
                wrong = f"a token {most} of {name!r}, which has {size} codes"
                raise UserError(f"{self.folder}: damaged: {wrong}; `smalti tokens --check` says where")

    def grid_of(self, index: int) -> Grid:
        """The grid (h, w) of image ``index``."""
        return self.description.shards[int(self._index[index, 0])].grid

    def _one(self, index: int, view: int) -> dict[str, Array]:
        if not 0 <= index < self._count:
            raise IndexError(f"image {index}: expected 0 to {self._count - 1}")
        shard, row = self._places.item(2 * index), self._places.item(2 * index + 1)
        buffer, layout = self._mapped.get(shard) or self._map(shard)
        return layout.one(buffer, (row * len(self.views) + view) * layout.length)

    def _many(self, indices: Array, view: int | Array) -> dict[str, Array]:
        if indices.ndim != 1 or not indices.size:
            raise UserError(f"indices with shape {indices.shape}: expected (B,), B at least 1")
        if indices.min() < 0 or indices.max() >= self._count:
            raise IndexError(f"images {indices.min()} to {indices.max()}: expected 0 to {self._count - 1}")
        views = np.broadcast_to(np.asarray(view, dtype=np.int64), indices.shape)
        if views.min() < 0 or views.max() >= len(self.views):
            raise IndexError(f"views {views.min()} to {views.max()}: expected 0 to {len(self.views) - 1}")
        shards, rows = self._index[indices].T
        order = np.argsort(shards, kind="stable")
        records = rows.astype(np.int64) * len(self.views) + views
        present, starts = np.unique(shards[order], return_index=True)
        layout = (self._mapped.get(int(present[0])) or self._map(int(present[0])))[1]
        found = np.zeros((len(indices), layout.length + layout.margin), np.uint8)
        for shard, places in zip(present.tolist(), np.split(order, starts[1:]), strict=True):
            buffer, own = self._mapped.get(shard) or self._map(shard)
            if own is not layout:
                grids = f"{layout.grid[0]} x {layout.grid[1]} and {own.grid[0]} x {own.grid[1]}"
                raise UserError(f"{self.folder}: images of grids {grids} in one batch: read them apart")
            whole = buffer[: len(buffer) - own.margin].reshape(-1, own.length)
            found[places, : own.length] = whole[records[places]]
        return layout.many(found)

    def _map(self, number: int) -> tuple[Array, Layout]:
        """The bytes of a shard, and how they lie."""
        if not 0 <= number < len(self.description.shards):
            raise UserError(f"{self.folder / INDEX}: damaged: no shard {number}; `smalti tokens --check` says more")
        if len(self._mapped) >= MOST_MAPPED:
            del self._mapped[next(iter(self._mapped))]
        buffer = map_bytes(shard_path(self.folder, number), self._length(number))
        self._mapped[number] = (buffer, self._layouts[self.description.shards[number].grid])
        return self._mapped[number]

    def _length(self, number: int) -> int:
        """Bytes of the file of a shard."""
        shard = self.description.shards[number]
        if not shard.rows:
            return 0
        layout = self._layouts[shard.grid]
        return shard.rows * len(self.views) * layout.length + layout.margin

    def _column(self, number: int, kind: str) -> Array | Texts:
        path = column_path(self.folder, number, kind)
        return read_texts(path, self._count) if kind == "text" else read_array(path, (self._count,), f"<{kind[0]}8")

    def blocks(self, most: int = 2**24) -> Iterator[Mapping[str, Array]]:
        """All views of all images in the order of the shards, so many bytes at a time, as ``read`` gives them."""
        for number, shard in enumerate(self.description.shards):
            if not shard.rows:
                continue
            layout = self._layouts[shard.grid]
            buffer = map_bytes(shard_path(self.folder, number), self._length(number))
            step = max(1, most // layout.length)
            for first in range(0, shard.rows * len(self.views), step):
                last = min(first + step, shard.rows * len(self.views))
                records = np.zeros((last - first, layout.length + layout.margin), np.uint8)
                records[:, : layout.length] = buffer[first * layout.length : last * layout.length].reshape(
                    -1, layout.length
                )
                yield layout.many(records)

    def verify(self, progress: Callable[[int, int], None] = lambda done, of: None) -> list[str]:
        """Reads every file; what is damaged, a sentence each, none if the store is what it was written as."""
        files = {self.folder / name: sha for name, sha in self.description.files.items()}
        files |= {shard_path(self.folder, n): shard.sha256 for n, shard in enumerate(self.description.shards)}
        wrong = []
        for done, (path, expected) in enumerate(files.items(), 1):
            found = sha256_of(path)
            if found != expected:
                wrong.append(f"{path}: SHA-256 {found[:16]}..., {STORE} says {expected[:16]}...")
            progress(done, len(files))
        return wrong


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, a block at a time."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
