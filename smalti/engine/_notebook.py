"""A run in a notebook: a bar, the tables of the last log step and the newest picture, all in one output cell."""

import base64
import time
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from IPython.display import HTML, display  # there is a kernel, or nobody asks for this file

from smalti.engine._rows import cells_of, merged, sections
from smalti.writing import html_table

SECONDS_BETWEEN = 0.5  # two updates of a page are not nearer


class Notebook:
    """One cell of output that is replaced as the run goes on.

    Args:
        total: steps of the run.
        samples: folder of its pictures.
    """

    def __init__(self, total: int, samples: Path) -> None:
        self.total, self.samples = total, samples
        self._step, self._speed, self._drawn = 0, "", 0.0
        self._record: dict[str, Any] = {}
        self._said: list[str] = []
        self._handle: Any = None

    def start(self, step: int) -> None:
        """Makes the cell's output."""
        self._step = step
        self._handle = display(HTML(self.page()), display_id=True)

    def advance(self, step: int) -> None:
        """Moves the bar, twice a second at most."""
        self._step = step
        if time.monotonic() - self._drawn > SECONDS_BETWEEN:
            self._draw()

    def show(self, record: Mapping[str, Any], speed: str) -> None:
        """The numbers of a log step; those of the last validation stay until the next."""
        self._record = merged(self._record, record)
        self._speed = speed or self._speed
        self._draw()

    def say(self, message: str) -> None:
        """A line below the bar."""
        self._said.append(message)
        self._draw()

    def stop(self) -> None:
        """Leaves the last state standing."""
        self._draw()

    def page(self) -> str:
        """The HTML of the cell."""
        bar = f'<progress value="{self._step}" max="{self.total}" style="width: 60%"></progress>'
        said = "".join(f"<div>{escape(line)}</div>" for line in self._said)
        tables = "".join(
            html_table((section.title, *section.header[1:]), [cells_of(section, row) for row in section.rows])
            for section in sections(self._record)
        )
        flow = f'<div style="display: flex; flex-wrap: wrap; gap: 0 2em">{tables}</div>'
        return f"<div>{bar} {self._step}/{self.total} {escape(self._speed)}{said}{flow}{self._picture()}</div>"

    def _picture(self) -> str:
        newest = max(self.samples.glob("*.png"), key=lambda path: path.stat().st_mtime_ns, default=None)
        if newest is None:
            return ""
        data = base64.b64encode(newest.read_bytes()).decode("ascii")
        title = f"step {int(newest.stem)}" if newest.stem.isdigit() else escape(newest.stem)
        return (
            f'<figure><img src="data:image/png;base64,{data}" alt="{title}"><figcaption>{title}</figcaption></figure>'
        )

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        if self._handle is not None:
            self._handle.update(HTML(self.page()))
