"""Results side by side; what was measured under different protocols is not compared."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smalti.evaluation.results import Result
from smalti.registry import UserError

ENDS = ("_low", "_high")  # of an interval, behind the name of its number
MIXED = "*"  # behind a number that was measured otherwise than the first row's


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Some results as one table.

    Args:
        results: in the order in which they were given.
        names: of the tokenizers, each once.
        numbers: names of the numbers, in the order of the first result that has them; those of single codebooks apart
            where there is one of all.
        differences: name of a tokenizer -> field -> (the first's value, its own), of those measured otherwise.
    """

    results: Sequence[Result]
    names: Sequence[str]
    numbers: Sequence[str]
    differences: Mapping[str, Mapping[str, tuple[Any, Any]]]

    def value(self, row: int, number: str) -> float | None:
        """A number of a result; None if it has none, or one that is not finite, which JSON does not hold."""
        found = self.results[row].numbers.get(number)
        return float(found) if found is not None and math.isfinite(found) else None


def compared(results: Sequence[Result], *, mixed: bool = False) -> Comparison:
    """The table of some results.

    Args:
        results: at least one.
        mixed: whether different protocols or images are taken, and marked.

    Raises:
        UserError: if they were measured under different protocols, on different images, or on fewer of them, with what
            differs.
    """
    if not results:
        raise UserError("nothing to compare: expected results of `smalti evaluate`")
    names = _names(results)
    differences = {
        name: found for name, result in zip(names, results, strict=True) if (found := _differences(results[0], result))
    }
    if differences and not mixed:
        lines = [
            f"  {name}: {field}={theirs!r}, {names[0]} has {ours!r}"
            for name, found in differences.items()
            for field, (ours, theirs) in found.items()
        ]
        raise UserError("\n".join(["measured otherwise, and not to be compared (--allow-mixed marks them):", *lines]))
    known = list(dict.fromkeys(number for result in results for number in result.numbers))
    numbers = [number for number in known if not _is_part(number, known)]
    return Comparison(results=results, names=names, numbers=numbers, differences=differences)


def _is_part(number: str, known: Sequence[str]) -> bool:
    """Whether it is of one codebook or channel where there is one of all, or an end of another's interval."""
    whole, slash, _ = number.partition("/")
    ends = {number.removesuffix(end) for end in ENDS} - {number}
    return bool(slash and whole in known) or any(of in known for of in ends)


def _names(results: Sequence[Result]) -> list[str]:
    """Names of the tokenizers; those that are called alike are numbered."""
    found: list[str] = []
    for result in results:
        name = str(result.tokenizer["name"])
        same = sum(other == name or other.startswith(f"{name} (") for other in found)
        found.append(f"{name} ({same + 1})" if same else name)
    return found


def _differences(first: Result, other: Result) -> dict[str, tuple[Any, Any]]:
    ours, theirs = first.protocol["fields"], other.protocol["fields"]
    found = {
        f"protocol.{name}": (ours.get(name), theirs.get(name))
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name)
    }
    if first.data["names_sha256"] != other.data["names_sha256"]:
        found["data"] = (first.data["path"], other.data["path"])
    if first.samples != other.samples:
        found["samples"] = (first.samples, other.samples)
    return found


def cells(comparison: Comparison) -> list[list[str]]:
    """The table as text, its head first; the digits are those of reports, MIXED marks numbers measured otherwise."""
    head = ["tokenizer", *comparison.numbers]
    rows = [head]
    for row, name in enumerate(comparison.names):
        mark = MIXED if name in comparison.differences else ""
        values = [comparison.value(row, number) for number in comparison.numbers]
        rows.append([name, *("-" if value is None else f"{_digits(value)}{mark}" for value in values)])
    return rows


def _digits(value: float) -> str:
    """Five digits that count.

    Example:
        >>> _digits(31.23456), _digits(0.00123456), _digits(76275.0)
        ('31.235', '0.0012346', '76,275')
    """
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def text(comparison: Comparison) -> str:
    """The table in aligned columns, with its footnotes."""
    table = cells(comparison)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for name, *values in table:
        aligned = (value.rjust(width) for value, width in zip(values, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    return "\n".join([*lines, *footnotes(comparison)])


def footnotes(comparison: Comparison) -> list[str]:
    """Under the table: the protocol, the images, and what was measured otherwise."""
    first = comparison.results[0]
    protocol = f"{first.protocol['name']} ({first.protocol['hash']})"
    lines = [f"{first.samples} images of {first.data['path']}, protocol {protocol}"]
    for name, found in comparison.differences.items():
        told = ", ".join(f"{field}={theirs!r} and not {ours!r}" for field, (ours, theirs) in found.items())
        lines.append(f"{MIXED} {name}: {told}")
    return lines


def markdown(comparison: Comparison) -> str:
    """The table in Markdown, with its footnotes."""
    table = cells(comparison)
    lines = [" | ".join(row).join(("| ", " |")) for row in table]
    lines.insert(1, "|".join(["---"] * len(table[0])).join("||"))
    return "\n".join([*lines, "", *footnotes(comparison)])
