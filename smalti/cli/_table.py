"""Measurements as two aligned columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import typer


def print_rows(evaluation: Mapping[str, Any], intervals: Mapping[str, Sequence[float]] | None = None) -> None:
    """Prints the name and the value of each measurement; the terms of the objective are left to the page.

    Args:
        evaluation: name -> value.
        intervals: name -> where the mean lies with 95 %, printed behind the value.
    """
    from smalti.report import describe, rows

    between = intervals or {}
    texts = {describe(name, ends[0])[0]: [describe(name, end)[1] for end in ends] for name, ends in between.items()}
    table = rows(evaluation)
    width = max((len(name) for name, _ in table), default=0)
    for name, text in table:
        low_high = f"  ({' to '.join(texts[name])})" if name in texts else ""
        typer.echo(f"{name:{width}}  {text}{low_high}")
