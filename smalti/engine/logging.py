"""What a run tells: ``metrics.jsonl``, a tracker, and whoever watches."""

import importlib.util
import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.engine.run_folder import RunFolder
from smalti.engine.settings import EngineSettings, Tracker, flatten
from smalti.engine.watcher import Watcher
from smalti.objectives.report import LossReport
from smalti.registry import UserError
from smalti.writing import flush_to_disk, to_json, write_whole

Record = dict[str, Any]

EXTRAS = {"tensorboard": "smalti[track]", "wandb": "wandb", "trackio": "trackio"}


def flatten_reports(reports: Sequence[LossReport]) -> Record:
    """The numbers of an update's micro-batches as means, on the host, and the status of each term.

    Names are those of ``LossReport.flatten``; a term's status is that of the last micro-batch.
    """
    columns: dict[str, list[float]] = {}
    for report in reports:
        for name, value in to_host(report.flatten()).items():
            columns.setdefault(name, []).append(value)
    record: Record = {name: sum(values) / len(values) for name, values in columns.items()}
    return record | {f"{name}/status": status for name, status in reports[-1].statuses.items()}


def to_host(values: Mapping[str, Tensor | float]) -> dict[str, float]:
    """The scalars as Python numbers, with one transfer from each device that they lie on."""
    found = {name: value if isinstance(value, Tensor) else float(value) for name, value in values.items()}
    places: dict[torch.device, dict[str, Tensor]] = {}
    for name, value in found.items():
        if isinstance(value, Tensor):
            places.setdefault(value.device, {})[name] = value.detach().reshape(()).to(torch.float64)
    read: dict[str, float] = {}
    for tensors in places.values():
        read |= dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
    return {name: read[name] if isinstance(value, Tensor) else value for name, value in found.items()}


def codebook_usage(model: nn.Module) -> dict[str, float]:
    """``codebook/<name>/usage`` and ``/perplexity`` of the model's bottlenecks, as they counted them."""
    found: dict[str, Tensor | float] = {}
    for part in model.modules():
        usage = getattr(part, "usage", None) if isinstance(part, Bottleneck) else None
        for name, values in usage().items() if usage is not None else ():
            found |= {f"codebook/{name}/{key}": value for key, value in values.items()}
    return to_host(found)


def mean_over_ranks(records: Sequence[Record]) -> Record:
    """One record from those of all ranks: numbers as means over the ranks that have them, words from the first."""
    merged: Record = {}
    for name in {name: None for record in records for name in record}:
        values = [record[name] for record in records if name in record]
        numbers = [value for value in values if isinstance(value, (int, float)) and not isinstance(value, bool)]
        differ = len(numbers) == len(values) and len(set(numbers)) > 1
        merged[name] = sum(numbers) / len(numbers) if differ else values[0]
    return merged


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, in the order of ``step``; numbers that are not finite become null."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0

    def go_back(self, step: int, measured: bool = True, lines: int = 0) -> str:
        """Drops the lines after ``step``, and a last line that a crash cut short. That needs no space on the disk.

        A file with damage before its end is kept beside as ``metrics.damaged-1.jsonl``; what is readable goes on.

        Args:
            step: the last one that is kept.
            measured: whether its validation is kept, too; if not, it will be done again.
            lines: how many there were when this step was saved.

        Returns:
            What to tell the user: what was lost, empty if nothing was.
        """
        kept: list[bytes] = []
        whole = self.path.is_file()
        if whole:
            with self.path.open("rb") as file:
                found = [(line, *_read_line(line)) for line in file]
            kept = [line for line, number, names in found if _is_kept(number, names, step, measured)]
            whole = all(line is other for line, (other, _, _) in zip(kept, found, strict=False))
            whole &= len(kept) >= lines
        told = ""
        if self.path.exists() and not whole:
            place = _free_name(self.path)
            self.path.rename(place)
            told = f"; the damaged log is now {place.name}"
        if not whole and kept:
            write_whole(self.path, b"".join(kept).decode("utf-8"))
        elif whole:
            os.truncate(self.path, sum(map(len, kept)))
        self.lines = len(kept)
        lost = max(lines - len(kept), 0)
        return f"{self.path.name}: {lost or 'some'} lines are lost{told}" if lost or told else ""

    def flush(self) -> int:
        """Returns when all lines are on the disk; how many there are."""
        if self.path.exists():
            flush_to_disk(self.path)
        return self.lines

    def write(self, record: Record) -> None:
        """Appends a line and hands it to the operating system at once.

        Raises:
            UserError: if it cannot be written.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(to_json(record, indent=None) + "\n")
            self.lines += 1
        except OSError as error:
            raise UserError(f"cannot write {self.path}: {error}") from error


def _read_line(line: bytes) -> tuple[float, list[str]]:
    """Step and names of a line; one that cannot be read, or was cut short, comes after all steps."""
    try:
        record = json.loads(line.decode("utf-8"))
        return (float(record["step"]) if line.endswith(b"\n") else math.inf), list(record)
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return math.inf, []


def _is_kept(number: float, names: Sequence[str], step: int, measured: bool) -> bool:
    again = number == step and not measured and any(name.startswith("val/") for name in names)
    return number <= step and not again


def _free_name(path: Path) -> Path:
    """``metrics.damaged-1.jsonl``, or the first higher number that is free."""
    places = (path.with_name(f"{path.stem}.damaged-{number}{path.suffix}") for number in count(1))
    return next(place for place in places if not place.exists())


def check_tracker(name: Tracker) -> None:
    """Refuses a tracker whose package is missing, before anything is trained.

    Raises:
        UserError: with what to install.
    """
    if name != "none" and importlib.util.find_spec(name) is None:
        raise UserError(f"engine.tracker={name!r}: the package is not installed (pip install {EXTRAS[name]})")


def open_tracker(name: Tracker, folder: Path, recipe: Mapping[str, Any]) -> Any:
    """accelerate's tracker of that name, told the recipe as flat text; None for "none"."""
    if name == "none":
        return None
    check_tracker(name)
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    kind = LOGGER_TYPE_TO_CLASS[name]
    needs_folder = kind.requires_logging_directory
    tracker = kind(folder.name, logging_dir=str(folder / name)) if needs_folder else kind(folder.name)
    if hasattr(tracker, "start"):
        tracker.start()
    config = {
        place: value if isinstance(value, (int, float, str)) else str(value) for place, value in flatten(recipe).items()
    }
    tracker.store_init_configuration(config)
    return tracker


class Journal:
    """All that the first rank tells of a run.

    Args:
        folder: where ``metrics.jsonl`` and trackers write.
        settings: of the run.
        quiet: show no progress.
    """

    def __init__(self, folder: RunFolder, settings: EngineSettings, quiet: bool = False) -> None:
        self.folder, self.settings = folder, settings
        self.file = MetricsFile(folder.metrics)
        self.watcher = Watcher(settings.max_steps, folder.samples, quiet)
        self._tracker: Any = None

    def open(self, step: int, recipe: Mapping[str, Any], measured: bool = True, lines: int = 0) -> None:
        """Forgets what was logged after ``step`` (-1: everything) and goes on from there.

        Args:
            step: the last one that is kept.
            recipe: for the tracker.
            measured: whether the validation of ``step`` is kept.
            lines: of the log when ``step`` was saved.
        """
        told = self.file.go_back(step, measured, lines)
        if told:
            self.warn(max(step, 0), told)
        self._tracker = open_tracker(self.settings.tracker, self.folder.path, recipe)
        self.watcher.start(max(step, 0))

    def flush(self) -> int:
        """Returns when the log is on the disk; its number of lines."""
        return self.file.flush()

    def log(self, record: Record) -> None:
        """Writes a record everywhere."""
        self.file.write(record)
        self.watcher.show(record)
        if self._tracker is not None:
            numbers = {name: value for name, value in record.items() if isinstance(value, (int, float))}
            self._tracker.log(numbers, step=record["step"])

    def skipped(self, step: int, message: str) -> None:
        """Tells of a step that was skipped."""
        self.watcher.say(f"step {step} skipped: {message}")
        self.file.write({"step": step, "skipped": message})

    def say(self, step: int, message: str) -> None:
        """Tells of something that happened."""
        self.watcher.say(f"step {step}: {message}")
        self.file.write({"step": step, "note": message})

    def warn(self, step: int, message: str) -> None:
        """Tells of something that will not end well, with what to do about it."""
        self.watcher.say(f"step {step} warning: {message}")
        self.file.write({"step": step, "warning": message})

    def close(self) -> None:
        """Ends the bar and the tracker."""
        self.watcher.stop()
        if self._tracker is not None:
            self._tracker.finish()
            self._tracker = None
