"""What a diagnosis remembers of a run: bounded, made of plain numbers, the same whether seen live or read later."""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from statistics import median
from typing import Any

from smalti.diagnosis.facts import Facts

RECENT, FIRST, MEASURED = 32, 4, 16  # log steps, first log steps, validations that are kept whole

Record = dict[str, float]


def numbers_of(record: Mapping[str, Any]) -> Record:
    """The finite numbers of a log record, without those of single weights.

    >>> numbers_of({"step": 1, "train/d/clipped/w": 0.5, "train/g/l1/status": "active", "x": None, "y": 2})
    {'step': 1.0, 'y': 2.0}
    """
    return {
        name: float(value)
        for name, value in record.items()
        if (type(value) is float or type(value) is int) and math.isfinite(value) and "/clipped/" not in name
    }


class History:
    """The records of a run, thinned: the first ones, the latest ones, and the extremes of every number."""

    def __init__(self) -> None:
        self.first: list[Record] = []
        self.recent: list[Record] = []
        self.measured: list[Record] = []
        self.low: Record = {}
        self.high: Record = {}
        self.seen = 0

    def add(self, record: Record) -> None:
        """Takes a log record: of a validation if it has ``val/`` numbers, else of a training step."""
        if any(name.startswith("val/") for name in record):
            self.measured = [*self.measured, record][-MEASURED:]
        else:
            self.seen += 1
            self.first = [*self.first, record][:FIRST]
            self.recent = [*self.recent, record][-RECENT:]
        low, high = self.low, self.high
        for name, value in record.items():
            if name not in low:
                low[name] = high[name] = value
            elif value < low[name]:
                low[name] = value
            elif value > high[name]:
                high[name] = value

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes what ``as_dict`` gave."""
        vars(self).update(values)


class View:
    """What a rule may ask of a history.

    Args:
        history: of the run up to now.
        facts: of its recipe.
    """

    def __init__(self, history: History, facts: Facts) -> None:
        self.history, self.facts = history, facts
        self.now: Record = history.recent[-1] if history.recent else {}

    def __call__(self, name: str) -> float:
        """A number of the latest log step; nan if it is missing."""
        return self.now.get(name, math.nan)

    @property
    def step(self) -> int:
        """The latest log step."""
        return int(self.now.get("step", 0))

    @property
    def seen(self) -> int:
        """Log steps so far."""
        return self.history.seen

    def low(self, name: str) -> float:
        """The least value so far; nan if there is none."""
        return self.history.low.get(name, math.nan)

    def high(self, name: str) -> float:
        """The largest value so far; nan if there is none."""
        return self.history.high.get(name, math.nan)

    def began(self, name: str) -> float:
        """The mean over the first log steps that have it; nan if there is none."""
        return mean([record[name] for record in self.history.first if name in record])

    def is_at_full_rate(self, at: str) -> bool:
        """Whether the learning rate of a phase is not at the end of a schedule, as far as the log says."""
        return not self(f"{at}learning_rate") < 0.1 * self.high(f"{at}learning_rate")

    def latest(self, name: str, count: int) -> list[float]:
        """The values of the latest ``count`` log steps that have it, in their order."""
        return [record[name] for record in self.history.recent if name in record][-count:]

    def between(self, prefix: str, suffix: str) -> Iterator[tuple[str, float]]:
        """What stands between ``prefix`` and ``suffix`` in the names of the latest log step, with its value."""
        for name, value in self._ending.get(suffix[suffix.rindex("/") :], ()):
            if name.startswith(prefix) and name.endswith(suffix) and len(name) > len(prefix) + len(suffix):
                yield name[len(prefix) : len(name) - len(suffix)], value

    @cached_property
    def _ending(self) -> dict[str, list[tuple[str, float]]]:
        """The numbers of the latest log step by the last word of their names."""
        found: dict[str, list[tuple[str, float]]] = {}
        for name, value in self.now.items():
            found.setdefault(name[name.rfind("/") :], []).append((name, value))
        return found

    @cached_property
    def critics(self) -> list[tuple[str, str]]:
        """Name and beginning of the names of numbers, of each phase but the generator's."""
        names = [name for name, _ in self.between("train/", "/total") if "/" not in name and name != "generator"]
        return [(name, f"train/{name}/") for name in sorted(names)]


def mean(values: list[float]) -> float:
    """The mean; nan of nothing.

    >>> mean([1.0, 3.0]), mean([])
    (2.0, nan)
    """
    return sum(values) / len(values) if values else math.nan


def middle(values: list[float]) -> float:
    """The median; nan of nothing."""
    return median(values) if values else math.nan


def holds(values: list[float], condition: Callable[[float], bool], least: int) -> bool:
    """Whether there are at least so many values, and the condition holds for all of them."""
    return len(values) >= least and all(map(condition, values))
