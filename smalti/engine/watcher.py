"""What a person sees of a run: a terminal's bar and tables, a notebook's, or plain lines elsewhere."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Face(Protocol):
    """Something that shows a run in place."""

    def start(self, step: int) -> None:
        """Begins at ``step``."""

    def advance(self, step: int) -> None:
        """A step is done."""

    def show(self, record: Mapping[str, Any], speed: str) -> None:
        """A log step: its record, and speed and time left in words."""

    def say(self, message: str) -> None:
        """A line that stays."""

    def stop(self) -> None:
        """The run ends."""


class Watcher:
    """Shows a run in place on a terminal or in a notebook, as a plain line at each log step elsewhere.

    Args:
        total: steps of the run.
        samples: where its pictures are written; a notebook shows the newest.
        quiet: show nothing.
    """

    def __init__(self, total: int, samples: Path, quiet: bool = False) -> None:
        self.total, self.samples, self.quiet = total, samples, quiet
        self._face: Face | None = None

    def start(self, step: int) -> None:
        """Shows the run in place, if there is something that can."""
        if self.quiet:
            return
        if in_notebook():
            from smalti.engine._notebook import Notebook

            self._face = Notebook(self.total, self.samples)
        elif sys.stderr.isatty():
            from smalti.engine._terminal import Terminal

            self._face = Terminal(self.total)
        if self._face is not None:
            self._face.start(step)

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._face is not None:
            self._face.advance(step)

    def show(self, record: Mapping[str, Any]) -> None:
        """The main numbers of a log step."""
        if self._face is not None:
            self._face.show(record, speed(record))
        else:
            self.say(f"step {record['step']}/{self.total}  {summary(record)}")

    def say(self, message: str) -> None:
        """A line above the bar, or on standard error."""
        if self.quiet:
            return
        if self._face is not None:
            self._face.say(message)
        else:
            sys.stderr.write(message + "\n")
            sys.stderr.flush()

    def stop(self) -> None:
        """Leaves the last state standing."""
        if self._face is not None:
            self._face.stop()
            self._face = None


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook, which can show HTML."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and hasattr(shell, "kernel")


def speed(record: Mapping[str, Any]) -> str:
    """Images a second and the time left, as far as a record has them.

    >>> speed({"images_per_second": 40.0, "eta_seconds": 3725.0})
    '40.0 images/s  1:02:05 left'
    """
    parts = []
    if "images_per_second" in record:
        parts.append(f"{record['images_per_second']:.1f} images/s")
    if "eta_seconds" in record:
        minutes, seconds = divmod(round(record["eta_seconds"]), 60)
        parts.append(f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d} left")
    return "  ".join(parts)


def summary(record: Mapping[str, Any]) -> str:
    """Speed, time left, totals and raw terms of a record, in one line."""
    parts = [text] if (text := speed(record)) else []
    for name, value in record.items():
        words = name.split("/")
        if not isinstance(value, (int, float)) or words[0] not in {"train", "val"}:
            continue
        if words[-1] == "total" or (words[0] == "train" and words[-1] == "raw") or len(words) == 2:
            shown = [word for word in words if word not in {"train", "raw"}]
            parts.append(f"{'/'.join(shown)} {value:.4g}")
    return "  ".join(parts)
