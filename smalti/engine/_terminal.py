"""A run on a terminal: a bar that fits its width, and below it the tables of the last log step, in place."""

from collections.abc import Mapping
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from smalti.engine._rows import Section, cells_of, merged, sections

STATUS_STYLES = {"waiting": "dim", "skipped": "red"}  # colours where something is amiss, and nowhere else
LINES_KEPT = 3  # of the terminal's height, for the bar and what stands above


class Terminal:
    """The bar and the tables.

    Args:
        total: steps of the run.
        console: where they are shown; standard error if none is given.
    """

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.completed}/{task.total}"),
            BarColumn(bar_width=None, style="dim", complete_style="default", finished_style="default"),
            TextColumn("{task.percentage:.0f} %"),
            TextColumn("{task.description}"),
            console=self.console,
            expand=True,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=total)
        self._shown: dict[str, Any] = {}
        self._live = Live(console=self.console, refresh_per_second=4, get_renderable=self.picture)

    def start(self, step: int) -> None:
        """Shows the bar at ``step``."""
        self.advance(step)
        self._live.start()

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self._progress.update(self._task, completed=step)

    def show(self, record: Mapping[str, Any], speed: str) -> None:
        """The numbers of a log step; those of the last validation stay until the next."""
        self._shown = merged(self._shown, record)
        if speed:
            self._progress.update(self._task, description=speed)

    def say(self, message: str) -> None:
        """A line above the bar; a warning is yellow."""
        style = "yellow" if " warning: " in message else ""
        self.console.print(Text(message, style=style), soft_wrap=True)

    def stop(self) -> None:
        """Leaves the last state standing."""
        self._live.stop()

    def picture(self) -> RenderableType:
        """What is shown now, no wider and no higher than the terminal."""
        tables = [_table(section) for section in sections(self._shown)]
        room = max(self.console.height - LINES_KEPT, 1)
        return Group(self._progress, _Cut(Columns(tables, padding=(0, 3)), room)) if tables else self._progress


class _Cut:
    """The first lines of something, and how many more there are."""

    def __init__(self, inner: RenderableType, lines: int) -> None:
        self.inner, self.lines = inner, lines

    def __rich_console__(self, console: Console, options: Any) -> Any:
        lines = console.render_lines(self.inner, options, pad=False)
        fits = len(lines) <= self.lines
        for line in lines if fits else lines[: self.lines - 1]:
            yield from line
            yield Text("\n", end="")
        if not fits:
            yield Text(f"... and {len(lines) - self.lines + 1} more lines", style="dim")


def _table(section: Section) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, overflow="ellipsis")
    for _ in section.header[1:]:
        table.add_column(justify="right", no_wrap=True)
    table.add_row(Text(section.title, style="bold"), *(Text(name, style="dim") for name in section.header[1:]))
    for row in section.rows:
        name, *cells = cells_of(section, row)
        style = STATUS_STYLES.get(section.notes.get(name, ""), "")
        table.add_row(Text(f"  {name}"), *(Text(cell, style=style) for cell in cells))
    return table
