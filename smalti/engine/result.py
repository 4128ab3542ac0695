"""How a run ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti.diagnosis import Finding
from smalti.engine._rows import number
from smalti.writing import html_table


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Args:
        folder: the run folder.
        step: generator updates completed.
        finished: False if a signal stopped it; it can be resumed.
        evaluation: what ``evaluation.json`` holds, empty if the run was stopped.
        findings: what the doctor said, in the order in which it did.
    """

    folder: Path
    step: int
    finished: bool
    evaluation: Mapping[str, Any]
    findings: Sequence[Finding] = ()

    def _repr_html_(self) -> str:
        """What a notebook shows of it: the numbers, and where the run lies."""
        ended = "finished" if self.finished else "stopped, it can be resumed"
        rows = [[name, number(value) if isinstance(value, float) else str(value)] for name, value in self._numbers()]
        found = [[f"doctor: {finding.id}", finding.cause] for finding in self.findings]
        return html_table(["", f"step {self.step}, {ended}"], [*rows, *found, ["folder", str(self.folder)]])

    def _numbers(self) -> list[tuple[str, Any]]:
        return [(name, value) for name, value in self.evaluation.items() if isinstance(value, (int, float, str))]
