"""Report: reads a run folder, writes pictures and pages. It never asks the engine anything.

>>> from smalti.report import report, rows
"""

from pathlib import Path

from smalti.report.curves import draw_curves
from smalti.report.health import findings_of
from smalti.report.page import write_page
from smalti.report.run import Run, read_evaluation, read_run
from smalti.report.words import describe, heading, rows

__all__ = ["Run", "describe", "findings_of", "heading", "read_evaluation", "read_run", "report", "rows", "write_page"]


def report(run_dir: str | Path) -> list[Path]:
    """Draws the curves of a run and writes a page with its result, pictures, curves, environment and recipe.

    Args:
        run_dir: a run folder, of a run that has ended or that still goes on.

    Returns:
        ``report/curves.png`` and ``report/index.html`` in the run folder. The page needs nothing beside it.

    Raises:
        UserError: if it is no run folder, or matplotlib, jinja2 or plotly is not installed.
    """
    run = read_run(run_dir)
    folder = run.folder / "report"
    folder.mkdir(exist_ok=True)
    curves = draw_curves(run, folder / "curves.png")
    return [curves, write_page([run], folder / "index.html")]
