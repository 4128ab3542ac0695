"""The tables of ``docs/doctor.md``: one row a rule, one row a sick recipe, one row a healthy one."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smalti.diagnosis import all_rules

PAGE = Path(__file__).parents[1] / "docs" / "doctor.md"


def rules_section() -> str:
    """What each rule looks at, and what it says, under the heading that its link names."""
    parts = []
    for rule in all_rules():
        lines = [f"### {rule.id}", "", f"**{rule.title}.** {_sentence(rule.cause)}", ""]
        said = f"after {rule.patience} log steps in a row" if rule.patience > 1 else "at once"
        lines += [f"* when: {rule.threshold}; said {said}", f"* change: {rule.change}"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def zoo_section(sickly: Sequence[Any], hale: Sequence[Any], lines: Iterable[str]) -> str:
    """The numbers, and a row for each recipe."""
    rows = [*(f"* {line}" for line in lines), "", *_sick_rows(sickly), "", *_healthy_rows(hale)]
    return "\n".join(rows)


def _sick_rows(outcomes: Sequence[Any]) -> Iterator[str]:
    yield "| faulty recipe | changed from | change | finding | at update | other findings |"
    yield "|---|---|---|---|---|---|"
    for outcome in outcomes:
        animal, at = outcome.job.animal, outcome.named_at
        others = sorted({finding.id for finding in outcome.findings} - {animal.expect})
        setting = " ".join(f"`{one}`" for one in animal.overrides)
        named = f"[{animal.expect}](#{animal.expect})" if at is not None else f"**no**: {animal.expect}"
        yield f"| {animal.name} | {animal.base} | {setting} | {named} | {at or '-'} | {', '.join(others) or '-'} |"


def _healthy_rows(outcomes: Sequence[Any]) -> Iterator[str]:
    yield "| healthy recipe | runs | updates | findings |"
    yield "|---|---|---|---|"
    for name in dict.fromkeys(outcome.job.animal.name for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.job.animal.name == name]
        said = [f"{finding.id} at {finding.step}" for outcome in own for finding in outcome.findings]
        yield f"| {name} | {len(own)} | {sum(one.steps for one in own):,} | {', '.join(said) or 'none'} |"


def put(text: str, mark: str, section: str) -> str:
    """The page with what stands between two marks replaced."""
    begin, end = f"<!-- {mark}: made by python -m benchmarks.doctor --page -->", f"<!-- end of {mark} -->"
    head, _, rest = text.partition(begin)
    _, _, tail = rest.partition(end)
    return f"{head}{begin}\n\n{section}\n\n{end}{tail}"


def write_page(sickly: Sequence[Any], hale: Sequence[Any], lines: Iterable[str]) -> None:
    """Puts the tables into the page."""
    text = put(PAGE.read_text(encoding="utf-8"), "rules", rules_section())
    PAGE.write_text(put(text, "zoo", zoo_section(sickly, hale, lines)), encoding="utf-8")
