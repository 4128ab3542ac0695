"""The diagnosis of a run folder: its log is read as it was written."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from smalti.config import read_json, read_text
from smalti.diagnosis.diagnosis import Diagnosis
from smalti.diagnosis.finding import Finding
from smalti.registry import UserError

FILE = "diagnosis.jsonl"


def replay(records: Iterable[Mapping[str, Any]], recipe: Mapping[str, Any] | None = None) -> Diagnosis:
    """What a diagnosis says of the lines of ``metrics.jsonl``; the same as was said while the run went on."""
    found = Diagnosis(recipe)
    for record in records:
        found.take(record)
    return found


def with_written(findings: Iterable[Finding], folder: Path) -> list[Finding]:
    """The findings and what else ``diagnosis.jsonl`` of ``folder`` tells: its log may have lost lines since.

    Raises:
        UserError: if the file is damaged, with its line.
    """
    known = list(findings)
    keys = {finding.key for finding in known}
    told: dict[str, Finding] = {}
    path = folder / FILE
    lines = read_text(path).splitlines(keepends=True) if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break  # the run was killed in the middle of it
        values = read_json(line, f"{path}:{number}")
        try:
            finding = Finding.of(values)
        except (TypeError, KeyError, AttributeError) as error:
            raise UserError(f"{path}:{number}: expected a finding with id, subject and step") from error
        if finding.key not in keys:
            told[finding.key] = finding
    return sorted([*known, *told.values()], key=lambda finding: finding.step)
