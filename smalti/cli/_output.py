"""Standard streams that are closed, full or broken: an error of a verb that has something to say, and said once."""

import os
import sys
from collections.abc import Callable
from typing import Any

import typer

from smalti.engine.decoration import Forgiving

UNWRITTEN = 2
STANDARD_OUTPUT = "standard output"


class Output:
    """Standard output whose errors say that it is standard output that cannot be written.

    Args:
        stream: it, or the bytes below it.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: Any) -> int:
        """Writes."""
        try:
            return int(self._stream.write(text))
        except OSError as error:
            raise _named(error) from error

    def flush(self) -> None:
        """Flushes."""
        try:
            self._stream.flush()
        except OSError as error:
            raise _named(error) from error

    @property
    def buffer(self) -> "Output":
        """The bytes below."""
        return Output(self._stream.buffer)

    def __getattr__(self, name: str) -> Any:
        """Whatever else the stream has."""
        return getattr(self._stream, name)


def _named(error: OSError) -> OSError:
    return OSError(error.errno, error.strerror, STANDARD_OUTPUT)


def prepare_streams() -> None:
    """Lets errors of standard output say so, and puts something in the place of standard streams that are closed.

    The next file that is opened would get the number of a closed one, and what a library writes there would end up in
    it. Writing to standard output stays an error.
    """
    for number, name, mode in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is not None:
            continue
        descriptor = os.open(os.devnull, mode)
        if descriptor != number and not _is_open(number):
            os.dup2(descriptor, number)
            os.close(descriptor)
            descriptor = number
        stream = os.fdopen(descriptor, "r" if name == "stdin" else "w", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    streams: tuple[Any, Any] = (
        Output(sys.stdout),
        Forgiving(sys.stderr),
    )
    sys.stdout, sys.stderr = streams


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def drop_unwritten() -> OSError | None:
    """Flushes the standard streams; what cannot be written is dropped, so that Python's own end does not trip over it.

    Returns:
        Why standard output could not be written, if it could not.
    """
    lost = None
    streams: tuple[Any, Any] = (sys.__stdout__, sys.__stderr__)  # below what was put in their place
    for stream in streams:
        try:
            stream.flush()
        except (ValueError, AttributeError):  # closed
            continue
        except OSError as error:
            lost = error if stream is streams[0] else lost
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, stream.fileno())
            os.close(null)
            stream.flush()
    return lost


def run_and_exit(run: Callable[[], object]) -> None:
    """Runs the command line; output that was not written makes it fail, if nothing else did.

    Raises:
        SystemExit: always, with the exit code.
    """
    code: object = 0
    try:
        run()
    except SystemExit as end:
        code = end.code
    lost = drop_unwritten()
    if lost is not None and not code:
        typer.echo(f"error: {STANDARD_OUTPUT}: {lost.strerror}", err=True)
        code = UNWRITTEN
    sys.exit(code)  # type: ignore[arg-type]
