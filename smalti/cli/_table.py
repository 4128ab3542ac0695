"""Measurements as two aligned columns."""

from collections.abc import Mapping
from typing import Any

import typer


def print_rows(evaluation: Mapping[str, Any]) -> None:
    """Prints the name and the value of each measurement; the terms of the objective are left to the page."""
    from smalti.report import rows

    table = rows(evaluation)
    width = max((len(name) for name, _ in table), default=0)
    for name, text in table:
        typer.echo(f"{name:{width}}  {text}")
