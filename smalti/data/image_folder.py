"""A folder of images, with side folders and a table that belong to them by file name."""

import csv
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from smalti.data import MASK_COLUMNS, ImageSource, UnreadableImageError
from smalti.data._decoding import Mode, Verify, defects, read_image
from smalti.nn.distributed import rank
from smalti.registry import UserError

log = logging.getLogger("smalti")

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MODES: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}
_RESERVED = ("image", "index", "position")
_NAMED_AT_MOST = 20


class ImageFolder(ImageSource):
    """All images below a folder, sorted by their relative names.

    Files that cannot be read are counted, named in one line of the log and left out; what ``header`` overlooks (damage
    in the middle of a file) shows when the item is read, see ``UnreadableImageError``. How odd files are converted
    stands in ``smalti.data._decoding``. Hidden files and the side folders are not searched.

    Args:
        path: the folder.
        recursive: whether folders in it are searched too; links are followed.
        suffixes: file names that count as images end so, in any case.
        columns: name of a column -> folder with a file of the same relative name (any image suffix) for every image:
            ``mask``, ``alpha`` and ``weights`` are read as one channel, ``condition``, ``foreground``, ... as RGB.
        table: a CSV file with a column ``file`` (relative names, as in ``names``) and a row for every image. Its column
            ``weight`` becomes ``weights`` (numbers >= 0), ``label`` must be whole numbers, ``text`` stays text;
            any other column is numeric if all its cells are.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        verify: how files are looked at when the folder is read: ``header`` (start and end), ``decode`` (everything), or
            ``none``, for folders so large that even this takes minutes.

    Raises:
        UserError: if a folder or the table is missing, without a readable image, or lacks a file or row for one.
    """

    def __init__(
        self,
        path: str,
        recursive: bool = True,
        suffixes: Sequence[str] = SUFFIXES,
        columns: Mapping[str, str] | None = None,
        table: str | None = None,
        image_channels: Literal[1, 3, 4] = 3,
        verify: Verify = "header",
    ) -> None:
        if image_channels not in _MODES:
            raise ValueError(f"image_channels={image_channels!r}: expected 1, 3 or 4")
        self.image_channels = image_channels
        self.folder = _existing_folder("path", path)
        suffixes = tuple(suffix.lower() for suffix in suffixes)
        sides = {name: _existing_folder(f"columns.{name}", folder) for name, folder in (columns or {}).items()}
        names = sorted(_search(self.folder, recursive, suffixes, leave_out=sides.values()))
        if not names:
            raise UserError(f"path={path!r}: no image in this folder (looked for {', '.join(suffixes)})")
        unreadable = defects([(name, self.folder / name) for name in names], verify)
        names = [name for name in names if name not in unreadable]
        files = {column: _match(folder, names, suffixes, column) for column, folder in sides.items()}
        for found in files.values():
            unreadable |= defects([(name, found[name]) for name in names], verify)
        self.names = tuple(name for name in names if name not in unreadable)
        self.unreadable = tuple(sorted(unreadable))
        _tell(self.folder, len(self.names), unreadable)
        self._sides = {column: tuple(found[name] for name in self.names) for column, found in files.items()}
        self._table = _read_table(Path(table).expanduser(), self.names) if table is not None else {}
        for name in (*self._sides, *self._table):
            if name in _RESERVED or (name in self._sides and name in self._table):
                raise UserError(f"column {name!r} exists already: choose another name")
        self.columns = ("image", *self._sides, *self._table)

    @classmethod
    def columns_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``image``, the side folders, and whatever the table holds."""
        return ("image", *(options.get("columns") or ()), *(("*",) if options.get("table") else ()))

    def __len__(self) -> int:
        """Number of readable images."""
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index``: Pillow images, numbers and text by column.

        Raises:
            UnreadableImageError: if a file of this item turns out to be damaged.
        """
        item: dict[str, Any] = {"image": _read(self.folder / self.names[index], _MODES[self.image_channels])}
        for name, paths in self._sides.items():
            item[name] = _read(paths[index], "L" if name in MASK_COLUMNS else "RGB")
        return item | {name: values[index] for name, values in self._table.items()}


def _tell(folder: Path, readable: int, unreadable: Mapping[str, str]) -> None:
    """One line in the log that counts and names the images that are left out; an error if none is left."""
    if not unreadable:
        return
    listed = _some([f"{name} ({reason})" for name, reason in sorted(unreadable.items())], _NAMED_AT_MOST)
    total = readable + len(unreadable)
    if not readable:
        raise UserError(f"none of the {total} images in {folder} can be read: {listed}")
    if rank() == 0:
        log.warning("%d of %d images in %s cannot be read and are left out: %s", len(unreadable), total, folder, listed)


def _read(path: Path, mode: Mode) -> Any:
    try:
        return read_image(path, mode)
    except ValueError as error:
        raise UnreadableImageError(f"{path}: {error}") from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def _existing_folder(option: str, path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        kind = "is a file, expected a folder" if folder.exists() else "no such folder"
        raise UserError(f"{option}={path!r}: {kind}")
    return folder


def _search(folder: Path, recursive: bool, suffixes: tuple[str, ...], leave_out: Iterable[Path]) -> Iterator[str]:
    """Relative names of the images in ``folder``; every folder is visited once, whatever links lead to it."""
    visited = {path.resolve() for path in leave_out if path.resolve() != folder.resolve()}
    for root, folders, files in os.walk(folder, followlinks=True):
        here = Path(root).resolve()
        if here in visited:
            folders.clear()
            continue
        visited.add(here)
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in files:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield (Path(root) / name).relative_to(folder).as_posix()


def _match(folder: Path, names: Sequence[str], suffixes: tuple[str, ...], column: str) -> dict[str, Path]:
    """Image name -> file of the same relative name in a side folder, with the same suffix if there are several."""
    found: dict[str, list[str]] = {}
    for name in sorted(_search(folder, True, suffixes, ())):
        found.setdefault(os.path.splitext(name)[0], []).append(name)
    matched, missing = {}, []
    for name in names:
        candidates = found.get(os.path.splitext(name)[0], [])
        if not candidates:
            missing.append(name)
            continue
        if len(candidates) > 1 and name not in candidates:
            raise UserError(f"columns.{column}: {' and '.join(candidates)} in {folder} both belong to {name}")
        matched[name] = folder / (name if name in candidates else candidates[0])
    if missing:
        raise UserError(f"columns.{column}={str(folder)!r}: no file for {len(missing)} images: {_some(missing)}")
    return matched


def _read_table(path: Path, names: Sequence[str]) -> dict[str, list[Any]]:
    """Column name -> one value for each of ``names``."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header, rows = list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"table={str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    if "file" not in header:
        raise UserError(f"table={str(path)!r}: no column 'file', only {', '.join(header) or 'an empty first line'}")
    by_name = {row["file"]: row for row in rows}
    if len(by_name) < len(rows):
        twice = sorted({row["file"] for row in rows if by_name[row["file"]] is not row})
        raise UserError(f"table={str(path)!r}: more than one row for {_some(twice)}")
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UserError(f"table={str(path)!r}: no row for {len(missing)} images: {_some(missing)}")
    columns = {}
    for column in header:
        if column != "file":
            cells = [by_name[name][column] or "" for name in names]
            columns["weights" if column == "weight" else column] = _parse(path, column, cells, names)
    return columns


def _parse(path: Path, column: str, cells: list[str], names: Sequence[str]) -> list[Any]:
    """The cells of one column as int, float or str, by the rule that the column's name gives."""
    kinds: dict[str, tuple[Callable[[str], Any], ...]] = {"text": (str,), "label": (int,), "weight": (_weight,)}
    kinds["weights"] = kinds["weight"]
    for kind in kinds.get(column, (int, _finite, str)):
        values = [_try(kind, cell) for cell in cells]
        if None not in values:
            return values
    number = values.index(None)
    expected = "a whole number" if column == "label" else "a number >= 0"
    raise UserError(f"table={str(path)!r}: {column} of {names[number]} is {cells[number]!r}, expected {expected}")


def _try(kind: Callable[[str], Any], cell: str) -> Any:
    try:
        return kind(cell)
    except ValueError:
        return None


def _finite(cell: str) -> float:
    value = float(cell)
    if not math.isfinite(value):
        raise ValueError(cell)
    return value


def _weight(cell: str) -> float:
    value = _finite(cell)
    if value < 0:
        raise ValueError(cell)
    return value


def _some(names: Sequence[str], number: int = 5) -> str:
    rest = len(names) - number
    return ", ".join(names[:number]) + (f" and {rest} more" if rest > 0 else "")
