"""Columns of a store that stay on the disk: numbers as one array, text as one file of bytes and where each begins."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from smalti.registry import UserError
from smalti.writing import decodable, whole

Array = np.ndarray


class Texts(Sequence[str]):
    """Text of any number of items, read when it is asked for.

    Args:
        characters: UTF-8 of all, uint8.
        ends: where each ends, int64 with shape (n,).
    """

    def __init__(self, characters: Array, ends: Array) -> None:
        self._ends, self._memory = ends, memoryview(characters.data)

    def __len__(self) -> int:
        """Number of items."""
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...
    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        """Text of an item."""
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        end = self._ends.item(index)
        begin = self._ends.item(index - 1) if index > 0 or -len(self) < index < 0 else 0
        return str(self._memory[begin:end], "utf-8", "replace")

    def __iter__(self) -> Iterator[str]:
        """One after the other."""
        return (self[index] for index in range(len(self)))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same text."""
        return isinstance(other, Sequence) and len(self) == len(other) and all(map(str.__eq__, self, other))

    def __hash__(self) -> int:
        """By the number of items."""
        return hash(len(self))


def write_array(path: Path, array: Array) -> None:
    """Writes one array, whole or not at all."""
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.lib.format.write_array(file, array, allow_pickle=False)


def read_array(path: Path, shape: tuple[int, ...], kind: str) -> Array:
    """A memory map of an array.

    Raises:
        UserError: if it is missing, damaged or another one.
    """
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    except (ValueError, EOFError, SyntaxError) as error:
        raise UserError(f"{path}: damaged: no array can be read from it") from error
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.dtype(kind):
        said = f"{getattr(found, 'dtype', '?')} {getattr(found, 'shape', '?')}"
        raise UserError(f"{path}: {said}: expected {np.dtype(kind)} {shape}")
    return found.view(np.ndarray)


def write_texts(path: Path, texts: Iterable[str]) -> list[Path]:
    """Writes text to ``path`` and ends to the same name with ``.npy``; what is no text in it is spelled out."""
    ends, total = [], 0
    with whole(path) as unfinished, unfinished.open("wb") as file:
        for text in texts:
            total += file.write(decodable(text).encode())
            ends.append(total)
    write_array(path.with_suffix(".npy"), np.array(ends, dtype="<i8"))
    return [path, path.with_suffix(".npy")]


def read_texts(path: Path, count: int) -> Texts:
    """Text of so many items.

    Raises:
        UserError: if it is missing, damaged or of another number of items.
    """
    ends = read_array(path.with_suffix(".npy"), (count,), "<i8")
    total = int(ends[-1]) if count else 0
    characters = map_bytes(path, total)
    return Texts(characters, ends)


def map_bytes(path: Path, length: int) -> Array:
    """A memory map of a file, uint8 with shape (length,).

    Raises:
        UserError: if it is missing, or of another length.
    """
    check_length(path, length)
    return np.memmap(path, np.uint8, "r").view(np.ndarray) if length else np.empty(0, np.uint8)


def check_length(path: Path, length: int) -> None:
    """Whether a file has so many bytes.

    Raises:
        UserError: if it is missing or has not.
    """
    try:
        there = path.stat().st_size
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing") from error
    if there != length:
        raise UserError(f"{path}: {there:,} bytes, expected {length:,}: truncated or damaged")


def type_of(values: Sequence[Any]) -> str:
    """How a column of plain values is stored: ``int64``, ``float64`` or ``text``.

    >>> type_of([1, 2]), type_of([1, 2.5, None]), type_of(["a"])
    ('int64', 'float64', 'text')
    """
    if all(isinstance(value, int) for value in values):
        return "int64"
    return "text" if any(isinstance(value, str) for value in values) else "float64"
