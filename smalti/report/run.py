"""The run folder, as the report reads it: the only thing that report and engine share."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

from smalti.config import read_json, read_text, read_yaml
from smalti.registry import UserError
from smalti.writing import printable

EVALUATION, RECIPE = "evaluation.json", "recipe.yaml"
_EXPECTED = "expected what `smalti train --out` wrote"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run left behind.

    Args:
        folder: where it is.
        recipe: the resolved recipe as YAML text; empty if there is none.
        records: the lines of ``metrics.jsonl``, in the order of their steps.
        evaluation: ``evaluation.json``; empty before the run has ended, or if it cannot be read.
        samples: pictures in the order of their names.
        environment: where it computed, from which step on; empty for runs that did not write it down.
        damaged: numbers of the lines of ``metrics.jsonl`` that could not be read.
        unread: name of another file that cannot be read, and is left out -> a line that says why.
    """

    folder: Path
    recipe: str
    records: tuple[Mapping[str, Any], ...]
    evaluation: Mapping[str, Any]
    samples: tuple[Path, ...]
    environment: tuple[Mapping[str, Any], ...] = ()
    damaged: tuple[int, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

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
    """Reads a run folder. Damaged lines of its log are left out, and told in ``damaged``; other files in ``unread``.

    Raises:
        UserError: if it is no run folder, or no line of its log can be read.
    """
    folder = Path(folder)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        what = "no metrics.jsonl in it" if folder.is_dir() else "no such folder"
        whole = [run for run in _runs_of(folder) if (run / "metrics.jsonl").is_file()]
        expected = f"the report is of a whole run: smalti report {whole[0]}" if whole else _EXPECTED
        raise UserError(f"{folder} is not a run folder: {what} ({expected})")
    records, damaged = _records(metrics)
    unread: dict[str, str] = {}

    def optional(name: str, read: Callable[[Path], Any], nothing: Any) -> Any:
        path = folder / name
        try:
            return read(path) if path.is_file() else nothing
        except (UserError, OSError) as error:
            unread[name] = left_out(path, error)
            return nothing

    return Run(
        folder=folder,
        recipe=optional(RECIPE, _recipe, ""),
        records=tuple(records),
        evaluation=optional(EVALUATION, read_evaluation, {}),
        samples=tuple(sorted((folder / "samples").glob("*.png"))),
        environment=optional("environment.json", _environment, ()),
        damaged=tuple(damaged),
        unread=unread,
    )


def left_out(path: Path, error: Exception) -> str:
    """One line that says of a file in a run folder why it is not shown; by its name, whatever the folder is called.

    >>> left_out(Path("runs/a/evaluation.json"), UserError("runs/a/evaluation.json: damaged"))
    'evaluation.json: damaged; it is left out'
    """
    said = str(error.strerror or error) if isinstance(error, OSError) else str(error)
    said = said.replace(str(path), path.name)
    return f"{'' if said.startswith(path.name) else f'{path.name}: '}{said}; it is left out"


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


def _recipe(path: Path) -> str:
    """The text of a recipe.

    Raises:
        UserError: if it is none, or no YAML.
    """
    text = read_text(path)
    read_yaml(text, str(path))
    return text


def _environment(path: Path) -> tuple[Mapping[str, Any], ...]:
    """Entries with a step; one that is damaged is worth no refusal.

    Raises:
        UserError: if the file is damaged.
    """
    found = read_json(read_text(path), str(path))
    if not isinstance(found, list):
        raise UserError(f"{path}: expected a list of entries")
    return tuple(entry for entry in found if isinstance(entry, dict) and is_number(entry.get("step")))


def read_evaluation(path: Path) -> Mapping[str, Any]:
    """The final measurements of a run: name -> value.

    Raises:
        UserError: if the file is damaged.
    """
    found = read_json(read_text(path), str(path))
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object of measurements")
    return found
