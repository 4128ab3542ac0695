"""SIGTERM and SIGINT ask a run to stop between two steps; the second SIGINT stops it at once."""

import signal
import threading
from types import FrameType
from typing import Any, Self


class StopSignal:
    """Within its context, the two signals set ``requested``; afterwards the former handlers are back.

    Python calls handlers in the main thread only: in another thread this does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Takes over the signals."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._former[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives the signals back."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
