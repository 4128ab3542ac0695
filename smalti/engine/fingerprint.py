"""What data consisted of, in a few kilobytes of a checkpoint, and how they differ now: in words, with names.

Of up to ``LISTED`` entries all names and marks are stored. Of more the sorted names are cut into ``RANGES`` ranges, of
each its first name, count, bytes and digest: ten million files take no more than ten thousand, and a change is found to
lie between two names.
"""

import hashlib
import operator
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from smalti.data._fingerprint import Mark, fingerprint_of
from smalti.data._table import some
from smalti.writing import printable

FORMAT = 1
LISTED, LISTED_CHARACTERS = 5000, 2**19
RANGES = 1000
_EXAMPLES = 3
_BLOCK = 10_000

Entry = tuple[str, Mark]


@dataclass(frozen=True)
class Listing:
    """The entries of one group, sorted by name.

    Args:
        names: of the entries.
        marks: sizes in bytes, or texts that change with the content.
        order: digest of the order in which they came, empty if that was the order of their names.
    """

    names: Sequence[str]
    marks: Sequence[Mark]
    order: str = ""

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Listing":
        """The listing of entries in any order."""
        given = list(entries)
        names = [name for name, _ in given]
        order = ""
        if not all(map(operator.lt, names, islice(names, 1, None))):
            order = _digest(given)
            given.sort(key=lambda entry: (entry[0], str(entry[1])))
            names = [name for name, _ in given]
        return cls(names, [mark for _, mark in given], order)

    def stored(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        short = len(self.names) <= LISTED and sum(map(len, self.names)) <= LISTED_CHARACTERS
        detail = {"names": list(self.names), "marks": list(self.marks)} if short else self._ranges()
        return self.summary(0, len(self.names)) | {"order": self.order} | detail

    def _ranges(self) -> dict[str, Any]:
        size = -(-len(self.names) // RANGES)
        cuts = range(0, len(self.names), size)
        return {
            "first": [self.names[cut] for cut in cuts],
            "ranges": [self.summary(cut, cut + size) for cut in cuts],
        }

    def summary(self, start: int, stop: int) -> dict[str, Any]:
        """Count, bytes and digest of the entries from ``start`` to ``stop``."""
        marks = self.marks[start:stop]
        return {
            "count": len(marks),
            "bytes": sum(mark for mark in marks if isinstance(mark, int)),
            "digest": _digest(zip(self.names[start:stop], marks, strict=True)),
        }


@dataclass(frozen=True)
class Fingerprint:
    """What a source consists of now.

    Args:
        items: its length.
        groups: name -> its entries.
    """

    items: int
    groups: Mapping[str, Listing]

    @classmethod
    def of(cls, source: Any, place: str) -> "Fingerprint":
        """The fingerprint of a data source.

        Raises:
            UserError: if the source says of itself what is none.
        """
        groups = fingerprint_of(source, place)
        return cls(len(source), {name: Listing.of(entries) for name, entries in groups.items()})

    def stored(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        groups = {name: listing.stored() for name, listing in self.groups.items()}
        return {"format": FORMAT, "items": self.items, "groups": groups}

    def changes_since(self, stored: Mapping[str, Any]) -> list[str]:
        """How the source differs from one that was ``stored``, a line for each group; empty if it is the same.

        An entry that is new in several groups, as an image and its mask are, is named in the first of them.
        """
        told: list[str] = []
        known: set[str] = set()
        before = stored["groups"]
        for name in {**before, **self.groups}:
            now = self.groups.get(name, Listing((), ()))
            change = _group_change(before.get(name) or Listing((), ()).stored(), now, known)
            told += [f"{name}: {change}"] if change else []
        if not told and stored["items"] != self.items:
            told = [f"{stored['items']:,} items have become {self.items:,}"]
        return told


def _group_change(before: Mapping[str, Any], now: Listing, known: set[str]) -> str:
    """What became of a group; names that come or go and are not ``known`` yet are added to these."""
    count = len(now.names)
    if before["digest"] == _digest(zip(now.names, now.marks, strict=True)):
        return f"the same {count:,} in another order" if before["order"] != now.order else ""
    if "names" in before:
        changed = _named_changes(Counter(zip(before["names"], before["marks"], strict=True)), now, known)
    else:
        changed = _ranges_changed(before["first"], before["ranges"], now)
    if not changed:
        return ""
    head = f"{before['count']:,} have become {count:,}, " if before["count"] != count else ""
    return head + ", ".join(changed)


def _named_changes(before: Counter[Entry], now: Listing, known: set[str]) -> list[str]:
    """Entries lost, added, renamed (another name has the mark) and changed, counted, with examples."""
    after = Counter(zip(now.names, now.marks, strict=True))
    gone, come = _sorted(before - after), _sorted(after - before)
    both = {name for name, _ in gone} & {name for name, _ in come}
    changed = zip(*([entry for entry in entries if entry[0] in both] for entries in (gone, come)), strict=False)
    lost, added = ([entry for entry in entries if entry[0] not in both | known] for entries in (gone, come))
    known |= {name for name, _ in (*lost, *added)}
    renamed = _renamed(lost, added)
    old, new = {one for one, _ in renamed}, {other for _, other in renamed}
    kinds = {
        "added": [_name(entry) for entry in added if entry not in new],
        "lost": [_name(entry) for entry in lost if entry not in old],
        "renamed": [f"{_name(one)} -> {_name(other)}" for one, other in renamed],
        "changed": [_marks_in_words(one, other) for one, other in changed],
    }
    return [f"{len(found):,} {kind} ({some(found, _EXAMPLES)})" for kind, found in kinds.items() if found]


def _renamed(lost: Sequence[Entry], added: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """Pairs of one mark; a mark that says nothing makes none."""
    waiting: dict[Mark, list[Entry]] = {}
    for entry in reversed(added):
        waiting.setdefault(entry[1], []).append(entry)
    return [(entry, waiting[entry[1]].pop()) for entry in lost if entry[1] != "" and waiting.get(entry[1])]


def _marks_in_words(one: Entry, other: Entry) -> str:
    if isinstance(one[1], int) and isinstance(other[1], int):
        return f"{_name(one)}: {one[1]:,} -> {other[1]:,} bytes"
    return _name(one)


def _ranges_changed(first: Sequence[str], ranges: Sequence[Mapping[str, Any]], now: Listing) -> list[str]:
    """Counts and bytes of the ranges of sorted names that are not as they were, with examples."""
    cuts = [0, *(bisect_left(now.names, name) for name in first[1:]), len(now.names)]
    places = [f"from {printable(one)} to {printable(other)}" for one, other in pairwise(first)]
    places.append(f"from {printable(first[-1])} on")
    found = []
    for number, (place, before) in enumerate(zip(places, ranges, strict=True)):
        after = now.summary(cuts[number], cuts[number + 1])
        if after != before:
            count, size = (f"{before[unit]:,} -> {after[unit]:,}" for unit in ("count", "bytes"))
            found.append(f"{place} ({count} entries, {size} bytes)")
    return [f"{len(found):,} of {len(ranges):,} ranges of names differ: {some(found, _EXAMPLES)}"]


def _sorted(entries: Counter[Entry]) -> list[Entry]:
    return sorted(entries.elements(), key=lambda entry: (entry[0], str(entry[1])))


def _name(entry: Entry) -> str:
    return printable(entry[0])


def _digest(entries: Iterable[Entry]) -> str:
    digest = hashlib.sha256()
    for block in _blocks(iter(entries)):
        # As Python spells it: 1 is not "1", and what is no text in the name of a file can be encoded.
        digest.update(ascii(block)[1:-1].encode("ascii") + b", ")
    return digest.hexdigest()


def _blocks(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while block := list(islice(entries, _BLOCK)):
        yield block
