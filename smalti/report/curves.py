"""The curve picture of a run: what each term weighs, how good the reconstruction is, what the adversary contributes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smalti.registry import UserError
from smalti.report.panels import HELD_OUT, Panel, late_starts, panels
from smalti.report.run import Run
from smalti.writing import whole

_COLUMNS = 2


def draw_curves(run: Run, path: Path) -> Path:
    """Writes a PNG with a panel for each thing the run logged; a panel without data is left out.

    Raises:
        UserError: if matplotlib is not installed, or the run has logged nothing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("the report needs matplotlib: pip install 'smalti[report]'") from error
    shown = [panel for panel in panels(run) if panel.summary]
    if not shown:
        raise UserError(f"{run.folder}: nothing to draw, metrics.jsonl holds no numbers yet")
    rows = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(12, 3.5 * rows), layout="constrained")
    figure.suptitle(f"{run.name}: {run.step:,} updates, {run.images:,} images")
    starts = late_starts(run)
    for index, panel in enumerate(shown, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, index)
        _draw(axes, panel, starts)
        axes.set_xlim(0, 1.02 * max(run.step, 1))
    with whole(path) as unfinished:
        figure.savefig(unfinished, dpi=110)
    return path


def _draw(axes: Any, panel: Panel, starts: Mapping[str, int]) -> None:
    colours: dict[str, Any] = {}
    for label, (steps, values) in panel.lines.items():
        name = label.removesuffix(HELD_OUT)
        (line,) = axes.plot(
            steps,
            values,
            label=label,
            color=colours.get(name),
            linewidth=1.6,
            linestyle="--" if name in colours else "-",
            marker="o" if len(steps) < 20 else None,
            markersize=4,
        )
        colours.setdefault(name, line.get_color())
    for name, step in starts.items():
        axes.axvline(step, color="0.5", linestyle=":", linewidth=1.2, label=f"{name} starts")
    axes.set_title(panel.title, fontsize=11)
    axes.set_ylabel(panel.unit)
    axes.set_xlabel("generator updates")
    axes.set_yscale(panel.scale)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, framealpha=0.8)
