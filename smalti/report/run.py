"""The run folder, as the report reads it: the only thing that report and engine share."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti.config import read_json, read_text
from smalti.registry import UserError

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
    """

    folder: Path
    recipe: str
    records: tuple[Mapping[str, Any], ...]
    evaluation: Mapping[str, Any]
    samples: tuple[Path, ...]

    def series(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of one logged quantity, without the lines that lack it."""
        pairs = [(record["step"], record[key]) for record in self.records if is_number(record.get(key))]
        return [int(step) for step, _ in pairs], [float(value) for _, value in pairs]

    def keys(self, prefix: str = "", suffix: str = "") -> list[str]:
        """Names of logged numbers with this beginning and end, in the order in which they first appear."""
        found = {key: None for record in self.records for key, value in record.items() if is_number(value)}
        return [key for key in found if key.startswith(prefix) and key.endswith(suffix)]


def is_number(value: Any) -> bool:
    """Whether a logged value can be drawn; True and False cannot.

    >>> is_number(1.5), is_number(True), is_number("active")
    (True, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_run(folder: str | Path) -> Run:
    """Reads a run folder.

    Raises:
        UserError: if it is no run folder, or a file in it is damaged, with file and line.
    """
    folder = Path(folder)
    metrics = folder / "metrics.jsonl"
    if not metrics.is_file():
        what = "no metrics.jsonl in it" if folder.is_dir() else "no such folder"
        whole = [run for run in _runs_of(folder) if (run / "metrics.jsonl").is_file()]
        expected = f"the report is of a whole run: smalti report {whole[0]}" if whole else _EXPECTED
        raise UserError(f"{folder} is not a run folder: {what} ({expected})")
    recipe, evaluation = folder / "recipe.yaml", folder / "evaluation.json"
    return Run(
        folder=folder,
        recipe=read_text(recipe) if recipe.is_file() else "",
        records=tuple(_records(metrics)),
        evaluation=read_evaluation(evaluation) if evaluation.is_file() else {},
        samples=tuple(sorted((folder / "samples").glob("*.png"))),
    )


def _runs_of(checkpoint: Path) -> list[Path]:
    """Run folders that the name of a checkpoint may point into."""
    return [Path(str(checkpoint).rpartition("@")[0]), checkpoint.parent.parent]


def _records(path: Path) -> Iterator[Mapping[str, Any]]:
    lines = read_text(path).splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            record = read_json(line, f"{path}:{number}")
        except UserError:
            if number == len(lines) and not line.endswith("\n"):
                return  # the run was killed in the middle of its last line
            raise
        if not isinstance(record, dict) or not is_number(record.get("step")):
            raise UserError(f"{path}:{number}: expected an object with a 'step'")
        yield record


def read_evaluation(path: Path) -> Mapping[str, Any]:
    """The final measurements of a run: name -> value.

    Raises:
        UserError: if the file is damaged.
    """
    found = read_json(read_text(path), str(path))
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected an object of measurements")
    return found
