"""What a run prints is decoration: a closed pipe, a full disk or a terminal that hung up takes lines, never a step."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Forgiving:
    """A stream that drops what its own stream cannot take, and in everything else is that stream.

    Args:
        stream: a text or binary stream; None, as where a standard stream was closed: everything is dropped.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: Any) -> int:
        """Writes if that is possible; letters that the stream's encoding lacks become question marks."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError as error:
            self.write(text.encode(error.encoding, "replace").decode(error.encoding))
        except (OSError, ValueError, AttributeError):  # broken, closed, None
            pass
        return len(text)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Writes each that can be written."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes if that is possible."""
        with suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether it is a terminal, as far as can be told."""
        try:
            return bool(self._stream.isatty())
        except (OSError, ValueError, AttributeError):
            return False

    @property
    def buffer(self) -> "Forgiving":
        """The bytes below, as forgiving."""
        return Forgiving(self._stream.buffer)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stream has."""
        return getattr(self._stream, name)


@contextmanager
def decoration() -> Iterator[None]:
    """Within, ``sys.stdout`` and ``sys.stderr`` are forgiving: for us, for logging, warnings, and the user's prints."""
    former = sys.stdout, sys.stderr
    ours: tuple[Any, Any] = (Forgiving(sys.stdout), Forgiving(sys.stderr))
    sys.stdout, sys.stderr = ours
    try:
        yield
    finally:
        if sys.stdout is ours[0]:
            sys.stdout = former[0]
        if sys.stderr is ours[1]:
            sys.stderr = former[1]
