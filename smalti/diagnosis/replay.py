"""The diagnosis of a run folder: its log is read as it was written."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from smalti.config import read_json
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


def with_written(
    findings: Iterable[Finding], folder: Path, say: Callable[[str], None] = lambda line: None
) -> list[Finding]:
    """The findings and what else ``diagnosis.jsonl`` of ``folder`` tells: its log may have lost lines since.

    Args:
        findings: those of the log.
        folder: of the run.
        say: told in one line how many lines of the file cannot be read; they are left out.
    """
    known = list(findings)
    keys = {finding.key for finding in known}
    told: dict[str, Finding] = {}
    damaged = 0
    try:
        lines = (folder / FILE).read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        lines = []
    except OSError as error:
        say(f"{FILE}: {error.strerror or error}; it is left out")
        lines = []
    for number, line in enumerate(lines, start=1):
        try:
            finding = Finding.of(read_json(line.decode("utf-8"), FILE))
        except (UserError, UnicodeDecodeError, TypeError, KeyError, AttributeError):
            damaged += number < len(lines) or line.endswith(b"\n")  # else the run was killed in the middle of it
            continue
        if finding.key not in keys:
            told[finding.key] = finding
    if damaged:
        say(f"{FILE}: {damaged} of {len(lines)} lines cannot be read; they are left out")
    return sorted([*known, *told.values()], key=lambda finding: finding.step)
