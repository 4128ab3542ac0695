"""The tables of ``docs/doctor.md``: one row a rule, one row a sick recipe, one row a healthy one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.doctor_cures import section as cures_section
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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What the benchmark found.

    Args:
        sickly: outcomes of the sick recipes.
        cured: of the same with their cures.
        hale: of the healthy ones.
        courses: cure of an adversary -> how held-out PSNR went, seed by seed.
        lines: the numbers that matter, in words.
    """

    sickly: Sequence[Any]
    cured: Sequence[Any]
    hale: Sequence[Any]
    courses: Sequence[Any]
    lines: Sequence[str]


def zoo_section(found: Measured) -> str:
    """The numbers, and a row for each recipe."""
    rows = [*(f"* {line}" for line in found.lines), "", *_sick_rows(found.sickly), "", *_cured_rows(found), ""]
    return "\n".join([*rows, *_healthy_rows(found.hale)])


def _sick_rows(outcomes: Sequence[Any]) -> Iterator[str]:
    yield "| faulty recipe | changed from | change | finding | at update | other findings |"
    yield "|---|---|---|---|---|---|"
    for outcome in outcomes:
        animal, at = outcome.job.animal, outcome.named_at
        setting = " ".join(f"`{one}`" for one in animal.overrides)
        named = f"[{animal.expect}](#{animal.expect})" if at is not None else f"**no**: {animal.expect}"
        yield f"| {animal.name} | {animal.base} | {setting} | {named} | {at or '-'} | {_others(outcome)} |"


def _others(outcome: Any) -> str:
    return ", ".join(sorted({finding.id for finding in outcome.findings} - {outcome.job.animal.expect})) or "-"


def _cured_rows(found: Measured) -> Iterator[str]:
    yield "| sick recipe | cured by | named before | now | also said |"
    yield "|---|---|---|---|---|"
    for outcome in found.cured:
        animal = outcome.job.animal
        now = outcome.trouble or ("gone" if outcome.named_at is None else f"**still there**, at {outcome.named_at}")
        lines = " ".join(f"`{one}`" for one in animal.cure)
        yield f"| {animal.name} | {lines} | {animal.expect} | {now} | {_others(outcome)} |"


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


def write_page(found: Measured) -> None:
    """Puts the tables into the page; those that were not measured stay as they are."""
    text = put(PAGE.read_text(encoding="utf-8"), "rules", rules_section())
    if found.sickly:
        text = put(text, "zoo", zoo_section(found))
    if found.courses:
        text = put(text, "adversary", cures_section(found.courses))
    PAGE.write_text(text, encoding="utf-8")
