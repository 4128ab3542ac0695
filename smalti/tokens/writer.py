"""Writing a token store: a shard appears whole or not at all, ``store.json`` comes last; a kill costs one shard.

Who writes which shard, and in which order, changes no byte: all of it follows from the plan and the data. Beside every
shard lies a small file with its hash and what is known of its images; a shard that has one is done.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smalti.registry import UserError
from smalti.tokens.columns import Array, type_of, write_array, write_texts
from smalti.tokens.description import (
    STORE,
    Description,
    Plan,
    Shard,
    differences,
    read_plan,
    write_description,
)
from smalti.tokens.layout import Grid
from smalti.tokens.store import INDEX, NAMES, SHARDS, TokenStore, column_path, sha256_of, shard_path
from smalti.writing import UNFINISHED, flush_to_disk, to_json, whole, write_whole

RESERVED = frozenset({"image", "indices", "mean", "logvar", "latent", "name", "index", "position"})
Rows = Iterator[tuple[Mapping[str, Array], Sequence[int], Mapping[str, Sequence[Any]]]]


class StoreWriter:
    """Writes the shards of one plan into a folder; several processes may each write some of them.

    Args:
        folder: where; see ``begin``.
        plan: what it is to be.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder, self.plan = folder, plan

    def begin(self, resume: bool) -> None:
        """Makes the folder ready, once for all processes.

        Args:
            resume: whether a store of the same plan may be there.

        Raises:
            UserError: if something is there without ``resume``, or it is of another plan, with every difference.
        """
        there = read_plan(self.folder)
        if there is None and self._others():
            raise UserError(f"{self.folder} is not empty, and no token store: choose another --out")
        if there is not None and not resume:
            finished = "a token store" if (self.folder / STORE).exists() else "a token store that is not finished"
            raise UserError(f"{self.folder} exists, {finished}: --resume goes on with it, or choose another --out")
        if there is not None:
            found = list(differences(there, self.plan))
            if found:
                raise UserError(f"{self.folder} was begun otherwise: {'; '.join(found)}")
        (self.folder / SHARDS).mkdir(parents=True, exist_ok=True)
        for path in self._unfinished():
            path.unlink()
        if there is None:
            write_description(self.folder, self.plan)
        flush_to_disk(self.folder)

    def is_done(self, number: int) -> bool:
        """Whether shard ``number`` is there and what it was written as."""
        told = self._told(number)
        path = shard_path(self.folder, number)
        return told is not None and path.is_file() and sha256_of(path) == told["sha256"]

    def write(self, number: int, grid: Grid, rows: Rows) -> None:
        """Writes a shard.

        Args:
            number: which.
            grid: (h, w) of all its images.
            rows: values of some images as :meth:`smalti.tokens.layout.Layout.write` takes them, all views of an image
                behind one another; the numbers of these images in the data; and their columns.

        Raises:
            UserError: for tokens that are none, or columns that no store can hold.
        """
        layout, path = self.plan.layout(grid), shard_path(self.folder, number)
        found, hashed = _Sidecar(), hashlib.sha256()
        with whole(path) as unfinished, unfinished.open("wb") as file:
            for values, items, columns in rows:
                data = layout.write(values).tobytes()
                hashed.update(data)
                file.write(data)
                found.add(items, columns)
            if found.items and layout.margin:
                file.write(bytes(layout.margin))
                hashed.update(bytes(layout.margin))
        flush_to_disk(path.parent)
        told = {"grid": grid, "sha256": hashed.hexdigest(), "items": found.items, "columns": found.columns}
        write_whole(path.with_suffix(".json"), to_json(told, indent=None) + "\n")

    def finish(self, shards: int, names: Sequence[str]) -> TokenStore:
        """Puts the index and the columns together, once all shards are there, and writes ``store.json``.

        Args:
            shards: how many there are.
            names: of all items of the data.

        Raises:
            UserError: if no image could be read, or a shard is missing.
        """
        told = [self._told(number) for number in range(shards)]
        missing = [number for number, one in enumerate(told) if one is None]
        if missing:
            raise UserError(f"{shard_path(self.folder, missing[0])}: missing; --resume makes it again")
        found = [one for one in told if one is not None]
        places = np.array(
            [(item, n, row) for n, one in enumerate(found) for row, item in enumerate(one["items"])], dtype=np.int64
        ).reshape(-1, 3)
        if not len(places):
            raise UserError("none of the images can be read")
        order = np.argsort(places[:, 0], kind="stable")
        write_array(self.folder / INDEX, places[order, 1:].astype("<i4"))
        files = [self.folder / INDEX, *write_texts(self.folder / NAMES, (names[i] for i in places[order, 0].tolist()))]
        columns, written = self._columns(found, order)
        description = Description(
            **{name: getattr(self.plan, name) for name in self.plan.__dataclass_fields__},
            count=len(places),
            left_out=self.plan.data.items - len(places),
            columns=columns,
            files={path.name: sha256_of(path) for path in [*files, *written]},
            shards=tuple(Shard(grid=tuple(o["grid"]), rows=len(o["items"]), sha256=o["sha256"]) for o in found),
        )
        for path in self._unfinished():
            path.unlink()
        flush_to_disk(self.folder)
        write_description(self.folder, description)
        flush_to_disk(self.folder)
        return TokenStore.open(self.folder)

    def _columns(self, shards: Sequence[Mapping[str, Any]], order: Array) -> tuple[dict[str, Any], list[Path]]:
        """Writes the columns in the order of the images; their types and files."""
        full = [one for one in shards if one["items"]]
        types: dict[str, Any] = {}
        files: list[Path] = []
        for number, name in enumerate(full[0]["columns"]):
            if any(name not in one["columns"] for one in full):
                raise UserError(f"column {name!r}: some images have it and some have not")
            values = [value for one in full for value in one["columns"][name]]
            types[name] = kind = type_of(values)
            path = column_path(self.folder, number, kind)
            if kind == "text":
                files += write_texts(path, (str(values[place]) for place in order.tolist()))
                continue
            numbers = [math.nan if value is None else value for value in values]
            write_array(path, np.array(numbers, dtype=f"<{kind[0]}8")[order])
            files.append(path)
        return types, files

    def _told(self, number: int) -> dict[str, Any] | None:
        """What lies beside a shard; None if nothing does, or it is damaged: then the shard is made again."""
        try:
            told = json.loads(shard_path(self.folder, number).with_suffix(".json").read_text(encoding="utf-8"))
            return told if {"grid", "sha256", "items", "columns"} <= set(told) else None
        except (OSError, ValueError, TypeError):
            return None

    def _others(self) -> list[str]:
        """What lies in the folder and is not of a store that was killed before it had a plan."""
        if not self.folder.exists():
            return []
        if not self.folder.is_dir():
            return [self.folder.name]
        return [
            path.name for path in self.folder.iterdir() if path.name not in {SHARDS, ".lock"} and not _is_left(path)
        ]

    def _unfinished(self) -> list[Path]:
        return [path for folder in (self.folder, self.folder / SHARDS) for path in folder.iterdir() if _is_left(path)]


class _Sidecar:
    """Numbers and columns of the images of a shard, as they come."""

    def __init__(self) -> None:
        self.items: list[int] = []
        self.columns: dict[str, list[Any]] = {}

    def add(self, items: Sequence[int], columns: Mapping[str, Sequence[Any]]) -> None:
        """Notes some images."""
        for name in columns:
            if name in RESERVED:
                raise UserError(f"column {name!r}: a token store has something else of that name: choose another")
        if self.items and set(columns) != set(self.columns):
            raise UserError(
                f"columns {', '.join(sorted(columns))} beside {', '.join(sorted(self.columns))} in one shard"
            )
        self.items += items
        for name, values in columns.items():
            self.columns.setdefault(name, []).extend(values)


def _is_left(path: Path) -> bool:
    """Whether it is what a killed process was about to write."""
    return path.name.startswith(UNFINISHED)
