"""A table of numbers and texts that belong to images by their names."""

import csv
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smalti.registry import UserError

INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, kw_only=True)
class Table:
    """What a table says of the images of a folder.

    Args:
        path: of its file.
        columns: name -> one value for each image, in their order.
        lines: name of an image -> the line of the file that its row ends in.
    """

    path: Path | None = None
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def place_of(self, name: str) -> str:
        """The file, the row and the image, for messages."""
        return f"{self.path}, line {self.lines[name]} ({name})" if name in self.lines else name

    def marks(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Each of ``names`` with what stands for all values of its row."""
        for name, *row in zip(names, *self.columns.values(), strict=True):
            text = ascii(sorted(zip(self.columns, row, strict=True)))
            yield name, hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


NO_TABLE = Table()


def read_table(path: Path, names: Sequence[str]) -> Table:
    """The table at ``path``: one row for each of ``names``, found by its column ``file``.

    Raises:
        UserError: if it cannot be read, lacks a row, has two for one image, or a value that its column does not allow.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            header = list(reader.fieldnames or ())
            rows = [(row, reader.line_num) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"table={str(path)!r}: {getattr(error, 'strerror', None) or error}") from error
    if "file" not in header:
        raise UserError(f"table={str(path)!r}: no column 'file', only {', '.join(header) or 'an empty first line'}")
    by_name = {row["file"]: row for row, _ in rows}
    if len(by_name) < len(rows):
        twice = sorted({row["file"] for row, _ in rows if by_name[row["file"]] is not row})
        raise UserError(f"table={str(path)!r}: more than one row for {some(twice)}")
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UserError(f"table={str(path)!r}: no row for {len(missing)} images: {some(missing)}")
    wanted = set(names)
    lines = {row["file"]: line for row, line in rows if row["file"] in wanted}
    columns = {}
    for column in header:
        if column != "file":
            cells = [by_name[name][column] or "" for name in names]
            columns["weights" if column == "weight" else column] = _parse(path, column, cells, names, lines)
    return Table(path=path, columns=columns, lines=lines)


def _parse(path: Path, column: str, cells: list[str], names: Sequence[str], lines: Mapping[str, int]) -> list[Any]:
    """The cells of one column as int, float or str, by the rule that the column's name gives."""
    kinds: dict[str, tuple[Callable[[str], Any], ...]] = {"text": (str,), "label": (_whole,), "weight": (_weight,)}
    kinds["weights"] = kinds["weight"]
    for kind in kinds.get(column, (_whole, _finite, str)):
        values = [_try(kind, cell) for cell in cells]
        if None not in values:
            return values
    number = values.index(None)
    expected = "a whole number of at most 64 bits" if column == "label" else "a number >= 0"
    where = f"line {lines[names[number]]}: {column} of {names[number]}"
    raise UserError(f"table={str(path)!r}, {where} is {cells[number]!r}, expected {expected}")


def _try(kind: Callable[[str], Any], cell: str) -> Any:
    try:
        return kind(cell)
    except ValueError:
        return None


def _whole(cell: str) -> int:
    value = int(cell)
    if value not in INT64:
        raise ValueError(cell)
    return value


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


def some(names: Sequence[str], number: int = 5) -> str:
    """The first of some names, and how many more there are.

    >>> some(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    rest = len(names) - number
    return ", ".join(names[:number]) + (f" and {rest} more" if rest > 0 else "")
