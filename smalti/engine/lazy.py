"""Terms that act only at every k-th update: a log step between two of their turns tells the last one."""

from collections.abc import Mapping

import torch
from torch import Tensor

from smalti.engine.logging import to_host
from smalti.engine.turn import Turn
from smalti.objectives.phases import Phase


class LazyTerms:
    """Last raw values, and parts, of the terms with ``every`` above 1; they stay on the device until they are read."""

    def __init__(self) -> None:
        self._last: dict[str, Tensor | float] = {}

    def note(self, phase: Phase, turn: Turn) -> None:
        """Keeps what ``turn`` of ``phase`` computed of lazy terms, as means over its micro-batches."""
        for name in {term.name for term in phase.terms if term.every > 1}:
            seen = [report.terms[name] for report in turn.reports if report.terms[name].raw is not None]
            values = [{"raw": term.raw, **term.parts} for term in seen]
            for key in values[0] if values else ():
                found = [value[key].detach() for value in values]  # type: ignore[union-attr]
                self._last[f"{turn.phase}/{name}/{key}"] = torch.stack(found).double().mean()

    def numbers(self) -> dict[str, float]:
        """``<phase>/<term>/raw`` and ``/<part>`` -> the last value; waits for the device."""
        return to_host(self._last)

    def restore(self, numbers: Mapping[str, float]) -> None:
        """Goes on from what ``numbers`` gave before."""
        self._last = dict(numbers)
