"""The data of a rank, all of a step's before the step begins: what goes wrong here leaves what was trained whole."""

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from smalti.engine.signals import ChildDeaths, Interrupted, StopSignal
from smalti.explain import explain
from smalti.outputs import Batch
from smalti.registry import UserError


class Loader(Protocol):
    """The micro-batches of one rank."""

    def batches(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Micro-batches ``start``, ``start + 1``, ... without end."""


class LoaderFactory(Protocol):
    """Makes the loader of one rank, once ranks are known."""

    def __call__(self, *, rank: int, world_size: int) -> Loader:
        """The loader of ``rank`` out of ``world_size``."""


class Feed:
    """Fetches micro-batches and hands them out.

    Args:
        loader: where they come from.
        signal: interrupts the waiting.
    """

    def __init__(self, loader: Loader, signal: StopSignal) -> None:
        self.loader, self.signal = loader, signal
        self._deaths = ChildDeaths()
        self._ready: deque[Batch] = deque()
        self._stream: Iterator[Batch] = iter(())
        self._number = 0

    def start(self, number: int) -> None:
        """Begins at micro-batch ``number``."""
        self._ready.clear()
        self._number = number
        self._stream = self.loader.batches(number)

    def fill(self, count: int) -> UserError | None:
        """Has ``count`` micro-batches ready, or fewer if a signal comes; what went wrong, if anything did."""
        try:
            with self._deaths.told(), self.signal.interruptible():
                while len(self._ready) < count:
                    self._ready.append(next(self._stream))
                    self._number += 1
        except Interrupted:
            return None
        except StopIteration:
            return UserError(f"the data ended after {self._number} micro-batches: a loader gives them without end")
        except UserError as error:
            return error
        except Exception as error:
            return _explained(error)
        finally:
            self._deaths.install()
        return None

    def take(self) -> Batch:
        """The next micro-batch.

        Raises:
            UserError: if there is none to be had.
        """
        if not self._ready:
            trouble = self.fill(1)
            if trouble is not None:
                raise trouble
        return self._ready.popleft()

    def close(self) -> None:
        """Ends the loader's workers."""
        close = getattr(self._stream, "close", None)
        try:
            if close is not None:
                close()
        finally:
            self._deaths.remove()


def _explained(error: Exception) -> UserError:
    if "DataLoader worker" in str(error):
        reason = str(error).splitlines()[0].strip().rstrip(".")
        found = UserError(
            f"a process that reads data has ended: {reason}; often the memory has run out (fewer data.workers help), "
            "and with data.workers=0 an error of the source shows itself"
        )
    else:
        found = UserError(f"the data cannot be read: {explain(error)}")
    found.__cause__ = error
    return found
