"""``smalti report``: curves and a page of a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder: what `smalti train --out` wrote.", show_default=False)
    ],
) -> None:
    """Draw the curves of a run, write its page.

    Example: smalti report runs/quickstart
    """
    from smalti.report import report as write_report

    for path in write_report(run):
        typer.echo(path)
