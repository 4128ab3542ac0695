"""The numbers of a run as a person reads them: a small table for each player, the codebooks, and the validation."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TERM_COLUMNS = ("raw", "weight", "weighted")
ACTIVE = "active"
UNSEEN = {"reachable", "reachable_share", "revival_patience"}  # what rules of the doctor need and no person reads


@dataclass(frozen=True)
class Section:
    """A table.

    Args:
        title: whose numbers they are.
        header: names of the columns, that of the first one empty.
        rows: cells of each row; the first is a name.
        notes: in place of the numbers of a row, what its term does instead: waiting, skipped.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: Mapping[str, str]


def sections(record: Mapping[str, Any]) -> list[Section]:
    """The tables of a record of ``metrics.jsonl``: one for each player, then codebooks, then validation.

    >>> record = {"train/generator/total": 0.5, "train/generator/l1/raw": 0.25, "train/generator/l1/weight": 2.0,
    ...           "train/generator/l1/weighted": 0.5, "train/generator/l1/status": "active", "val/psnr": 20.0}
    >>> [section.title for section in sections(record)]
    ['generator 0.5', 'validation']
    >>> sections(record)[0].rows
    (('l1', '0.25', '2', '0.5'),)
    """
    players = dict.fromkeys(
        words[1] for words in map(_words, record) if words[0] == "train" and len(words) == 4 and words[3] == "status"
    )
    return [*(_player(record, name) for name in players), *_codebooks(record), *_validation(record)]


def merged(shown: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """What is shown after a log step: the numbers of its training, and the last validation there was.

    >>> merged({"train/a": 1, "val/psnr": 20.0}, {"train/b": 2})
    {'val/psnr': 20.0, 'train/b': 2}
    """
    trained = any(name.startswith("train/") for name in record)
    kept = {name: value for name, value in shown.items() if not trained or name.startswith("val/")}
    return {**kept, **record}


def cells_of(section: Section, row: Sequence[str]) -> list[str]:
    """A row as it is shown: of a term that is not active its status stands in place of the last number."""
    status = section.notes.get(row[0])
    return [*row[:-1], status] if status else list(row)


def number(value: Any) -> str:
    """A number as it fits a cell.

    >>> number(0.000123456), number(12.0), number(76280.4), number(None)
    ('0.0001235', '12', '76,280', '-')
    """
    if not isinstance(value, (int, float)):
        return "-"
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"


def _words(name: str) -> list[str]:
    return name.split("/")


def _player(record: Mapping[str, Any], player: str) -> Section:
    start = f"train/{player}/"
    terms = [name.removeprefix(start).removesuffix("/status") for name in record if _is_status(name, start)]
    rows, notes = [], {}
    for term in terms:
        rows.append((term, *(number(record.get(f"{start}{term}/{column}")) for column in TERM_COLUMNS)))
        status = str(record[f"{start}{term}/status"])
        if status != ACTIVE:
            notes[term] = status
    total = record.get(f"{start}total")
    title = player if total is None else f"{player} {number(total)}"
    return Section(title, ("", *TERM_COLUMNS), tuple(rows), notes)


def _is_status(name: str, start: str) -> bool:
    return name.startswith(start) and name.endswith("/status")


def _codebooks(record: Mapping[str, Any]) -> Iterator[Section]:
    start = "train/codebook/"
    found: dict[str, dict[str, Any]] = {}
    for name, value in record.items():
        if name.startswith(start):
            book, _, key = name.removeprefix(start).rpartition("/")
            if key in UNSEEN:
                continue
            found.setdefault(book, {})[key] = value
    if found:
        header = tuple(dict.fromkeys(key for values in found.values() for key in values))
        rows = tuple((book, *(number(values.get(key)) for key in header)) for book, values in found.items())
        yield Section("codebooks", ("", *header), rows, {})


def _validation(record: Mapping[str, Any]) -> Iterator[Section]:
    values = {name.removeprefix("val/"): value for name, value in record.items() if _is_measured(name)}
    if values:
        rows = tuple((name, number(value)) for name, value in values.items())
        yield Section("validation", ("", ""), rows, {})


def _is_measured(name: str) -> bool:
    """Metrics and totals of a validation; what single terms were is for the page."""
    words = _words(name)
    return words[0] == "val" and (len(words) == 2 or words[-1] == "total")
