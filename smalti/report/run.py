"""The run folder, as the report reads it: the only thing that report and engine share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from smalti.config import read_json, read_text
from smalti.registry import UserError
from smalti.writing import printable

_EXPECTED = "expected what `smalti train --out` wrote"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left behind.

    Args:
        folder: where it is.
        recipe: the resolved recipe as YAML text; empty if there is none.
        records: the lines of ``metrics.jsonl``, in the order of their steps.
        evaluation: ``evaluation.json``; empty before the run has ended.
        samples: pictures in the order of their names.
        environment: where it computed, from which step on; empty for runs that did not write it down.
        damaged: numbers of the lines of ``metrics.jsonl`` that could not be read.
    """

    folder: Path
    recipe: str
    records: tuple[Mapping[str, Any], ...]
    evaluation: Mapping[str, Any]
    samples: tuple[Path, ...]
    environment: tuple[Mapping[str, Any], ...] = ()
    damaged: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Of the folder, as text that can be shown."""
        return printable(self.folder.resolve().name)

    @property
    def step(self) -> int:
        """Generator updates so far."""
        return int(self.last("step"))

    @property
    def images(self) -> int:
        """Images seen so far."""
        return int(self.last("images"))

    def last(self, key: str) -> float:
        """The newest value of a logged number; 0 if there is none."""
        values = (record[key] for record in reversed(self.records) if is_number(record.get(key)))
        return float(next(values, 0.0))

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged quantity, without the lines that lack it or where it is not finite."""
        found = ((record["step"], record.get(key)) for record in self.records)
        pairs = [(step, value) for step, value in found if is_number(value) and math.isfinite(value)]
        return [int(step) for step, _ in pairs], [float(value) for _, value in pairs]

    def keys(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Names of logged numbers with this beginning and end, in the order in which they first appear."""
        return [key for key in self._numbers if key.startswith(prefix) and key.endswith(suffix)]

    @cached_property
    def _numbers(self) -> tuple[str, ...]:
        return tuple({key: None for record in self.records for key, value in record.items() if is_number(value)})


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a logged value can be drawn; True and False cannot.

    >>> is_number(1.5), is_number(True), is_number("active")
    (True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_run(folder: str | Path) -> Run:
    """Reads a run folder. Lines of its log that are damaged are left out, and told in ``damaged``.

    Raises:
        UserError: if it is no run folder, no line of its log can be read, or another file in it is damaged, with file
            and line.
    """
    folder = Path(folder)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        what = "no metrics.jsonl in it" if folder.is_dir() else "no such folder"
        whole = [run for run in _runs_of(folder) if (run / "metrics.jsonl").is_file()]
        expected = f"the report is of a whole run: smalti report {whole[0]}" if whole else _EXPECTED
        raise UserError(f"{folder} is not a run folder: {what} ({expected})")
    recipe, evaluation = folder / "recipe.yaml", folder / "evaluation.json"
    records, damaged = _records(metrics)
    return Run(
        folder=folder,
        recipe=read_text(recipe) if recipe.is_file() else "",
        records=tuple(records),
        evaluation=read_evaluation(evaluation) if evaluation.is_file() else {},
        samples=tuple(sorted((folder / "samples").glob("*.png"))),
        environment=_environment(folder / "environment.json"),
        damaged=tuple(damaged),
    )


def _runs_of(checkpoint: Path) -> list[Path]:
    """Run folders that the name of a checkpoint may point into."""
    return [Path(str(checkpoint).rpartition("@")[0]), checkpoint.parent.parent]


def _records(path: Path) -> tuple[list[Mapping[str, Any]], list[int]]:
    """The lines that can be read, and the numbers of the others; the last one may have been cut short by a crash."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    records: list[Mapping[str, Any]] = []
    damaged: list[int] = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_record(line.decode("utf-8"), f"{path}:{number}"))
        except (UserError, UnicodeDecodeError):
            if number < len(lines) or line.endswith(b"\n"):
                damaged.append(number)
    if damaged and not records:
        for number, text in enumerate(read_text(path).splitlines(), start=1):
            _record(text, f"{path}:{number}")
    return records, damaged


def _record(line: str, place: str) -> Mapping[str, Any]:
    record = read_json(line, place)
    if not isinstance(record, dict) or not is_number(record.get("step")) or not math.isfinite(record["step"]):
        raise UserError(f"{place}: expected an object with a 'step'")
    return record


def _environment(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Entries with a step; one that is damaged is worth no refusal."""
    try:
        found = read_json(read_text(path), str(path)) if path.is_file() else []
    except UserError:
        return ()
    entries = found if isinstance(found, list) else []
    return tuple(entry for entry in entries if isinstance(entry, dict) and is_number(entry.get("step")))


def read_evaluation(path: Path) -> Mapping[str, Any]:
    """The final measurements of a run: name -> value.

    Raises:
        UserError: if the file is damaged.
    """
    found = read_json(read_text(path), str(path))
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object of measurements")
    return found
