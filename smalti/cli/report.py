"""``smalti report``: curves and a page of a run, or one page of several."""

from pathlib import Path
from typing import Annotated

import typer

from smalti.registry import UserError


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN", help="Run folders, as written by `smalti train`.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The HTML file to write; needed for several runs.", show_default="RUN/report/"
        ),
    ] = None,
) -> None:
    """Write an HTML report of a run, or compare several runs.

    One self-contained file with results, pictures, curves and the recipe. The run may still be training.

    Example: smalti report runs/quickstart

    Example: smalti report runs/a runs/b runs/c --out page.html
    """
    from smalti.report import read_run, write_page
    from smalti.report import report as write_report

    if out is None and len(runs) > 1:
        raise UserError(f"{len(runs)} runs: --out says where their page goes, such as --out page.html")
    if out is None:
        for path in write_report(runs[0]):
            typer.echo(path)
        return
    if out.suffix not in {".html", ".htm"}:
        raise UserError(f"--out {out}: expected a name that ends in .html")
    if out.is_dir():
        raise UserError(f"--out {out}: a folder; expected the name of a file")
    if len({run.resolve() for run in runs}) < len(runs):
        twice = next(run for index, run in enumerate(runs) if run.resolve() in {r.resolve() for r in runs[:index]})
        raise UserError(f"{twice} is named twice")
    found = [read_run(run) for run in runs]
    out.parent.mkdir(parents=True, exist_ok=True)
    typer.echo(write_page(found, out))
