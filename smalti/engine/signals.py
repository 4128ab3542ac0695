"""SIGTERM, SIGINT and SIGHUP ask a run to stop between two steps, and so does the death of its launcher.

What only waits, for data or for a measurement, is interrupted at once: nothing is lost by that. The second SIGINT stops
a run where it is.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

POLL_SECONDS = 1.0


class Interrupted(BaseException):
    """A signal came while the run waited. No Exception, so that a data source that catches all of these lets it by."""


class StopSignal:
    """Within its context, signals set ``requested``; afterwards the former handlers are back.

    Python calls handlers in the main thread only: in another thread this does nothing. A SIGHUP that is ignored, as
    under nohup, stays so.
    """

    def __init__(self) -> None:
        self.requested = False
        self._former: dict[int, Any] = {}
        self._waits = False
        self._launcher = os.getppid() if _has_launcher() else None
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        """Takes over the signals."""
        self.requested = False
        if threading.current_thread() is not threading.main_thread():
            return self
        for number in self._numbers():
            self._former[number] = signal.signal(number, self._note)
        if self._launcher is not None:
            self._ended.clear()
            threading.Thread(target=self._watch_launcher, args=(self._launcher,), daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Gives the signals back."""
        self._ended.set()
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Within, which may wait for long, a signal raises; also one that came before.

        Raises:
            Interrupted: where the signal came.
        """
        self._waits = True
        try:
            if self.requested:
                raise Interrupted
            yield
        finally:
            self._waits = False

    @staticmethod
    def _numbers() -> list[int]:
        numbers = [signal.SIGTERM, signal.SIGINT]
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            numbers.append(hangup)
        return [int(number) for number in numbers]

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if self._waits:
            raise Interrupted

    def _watch_launcher(self, launcher: int) -> None:
        while not self._ended.wait(POLL_SECONDS):
            if os.getppid() != launcher:
                main = threading.main_thread().ident
                if main is not None:
                    signal.pthread_kill(main, signal.SIGTERM)  # the main thread itself, which may wait for data
                return


def _has_launcher() -> bool:
    """Whether a process such as torchrun's agent started this one and answers for it; a shell does not."""
    return "TORCHELASTIC_RUN_ID" in os.environ or multiprocessing.parent_process() is not None


class ChildDeaths:
    """Keeps the news of a dead data worker until someone listens.

    torch tells of it by an exception in whatever the main thread is doing, which may be half of a step.
    """

    def __init__(self) -> None:
        self._former: Any = None
        self._listens = self._pending = False

    def install(self) -> None:
        """Takes over the handler, once torch has set it; to be called after the workers were started."""
        if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
            return
        handler = signal.getsignal(signal.SIGCHLD)
        if getattr(handler, "__module__", "") == "torch.utils.data._utils.signal_handling":
            self._former = handler
            signal.signal(signal.SIGCHLD, self._note)

    def remove(self) -> None:
        """Gives the handler back."""
        if self._former is not None:
            signal.signal(signal.SIGCHLD, self._former)
            self._former = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Within, a death is told, also one that came before.

        Raises:
            RuntimeError: as torch words it.
        """
        self._listens = True
        try:
            if self._pending:
                self._pending = False
                self._former(signal.SIGCHLD, None)
            yield
        finally:
            self._listens = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._listens:
            self._former(number, frame)
        else:
            self._pending = True
