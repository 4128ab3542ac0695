"""What a data source says it consists of, whoever wrote it: nothing is opened or decoded for it.

A source has groups of entries, each a name and its mark: a size in bytes, or any text that changes with the content.
A source that says nothing of itself is known by its length, and by the names and labels of its items if it has them.
"""

import hashlib
import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from smalti.explain import explain
from smalti.registry import UserError, shown

Mark = int | str
Entries = Iterable[tuple[str, Mark]]


def fingerprint_of(source: Any, place: str) -> dict[str, Entries]:
    """The groups of ``source``, in the order in which it gives them.

    Args:
        source: a data source; one from elsewhere need not have ``fingerprint``.
        place: of the source in the recipe, for messages.

    Raises:
        UserError: if its ``fingerprint`` fails, or gives something else than groups of names and marks.
    """
    own = getattr(source, "fingerprint", None)
    says = own if callable(own) else lambda: items_of(source)
    try:
        groups = says()
        if not isinstance(groups, Mapping):
            raise _odd(place, source, groups, "a mapping of groups")
        return {str(name): [_entry(entry, place, source) for entry in group] for name, group in groups.items()}
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{place}: what {type(source).__name__} consists of cannot be read: {explain(error)}"
        ) from error


def items_of(source: Any) -> dict[str, Entries]:
    """The names of the items with their labels, as far as they are known before items are read."""
    count = len(source)
    names, labels = (_one_each(getattr(source, name, None), count) for name in ("names", "labels"))
    if names is None and labels is None:
        return {}
    called = (f"item {index}" for index in range(count)) if names is None else map(str, names)
    marks = ("" for _ in range(count)) if labels is None else map(str, labels)
    return {"items": zip(called, marks, strict=True)}


def _one_each(values: Any, count: int) -> Iterable[Any] | None:
    """The values of an attribute, whoever wrote it, if there is one for each item."""
    plain = getattr(values, "tolist", None)  # arrays and tensors are slow to read one by one
    values = plain() if callable(plain) else values
    return values if isinstance(values, Sequence) and len(values) == count else None


def names_hash(source: Any) -> str:
    """SHA-256 of the names of all items, and of the sizes of their files where they have any."""
    found = hashlib.sha256()
    for group, entries in fingerprint_of(source, "data").items():
        for entry in entries:
            found.update(f"{group} {entry}\n".encode())
    return found.hexdigest()


def sized(names: Iterable[str], paths: Iterable[str | os.PathLike[str]]) -> Entries:
    """Names of items, each with the size of its file in bytes; a file that is gone by now has none."""
    return ((name, _size(path)) for name, path in zip(names, paths, strict=True))


def _size(path: str | os.PathLike[str]) -> Mark:
    try:
        return os.stat(path).st_size
    except OSError:
        return "gone"


def _entry(entry: Any, place: str, source: Any) -> tuple[str, Mark]:
    if not isinstance(entry, tuple) or len(entry) != 2:
        raise _odd(place, source, entry, "pairs of a name and its mark")
    name, mark = entry
    if type(mark) in {int, str}:
        return str(name), mark
    try:
        return str(name), int(operator.index(mark))
    except TypeError:
        raise _odd(place, source, mark, f"as mark of {shown(name)} a size in bytes or a text") from None


def _odd(place: str, source: Any, value: Any, expected: str) -> UserError:
    return UserError(f"{place}: fingerprint() of {type(source).__name__} gives {shown(value)}: expected {expected}")
