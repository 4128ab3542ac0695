"""The last line of defence: what nobody foresaw becomes one message, and its traceback a file.

Also what is the user's to mend though no check could know it before: memory that does not suffice. And streams that
take any file name.
"""

import codecs
import contextlib
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from smalti.cli._output import STANDARD_OUTPUT, UNWRITTEN
from smalti.writing import printable

UNFORESEEN = 3
DEBUG = "SMALTI_DEBUG"

_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can(no|')t allocate|ALLOC_FAILED|size calculation overflow"
    r"|multiplication overflow|array is too big|dimension exceeded|invalid buffer size",
    re.IGNORECASE,
)
_LOWER = ("size", "batch_size", "batch", "count", "interpolate", "tokens", "codes", "channels", "images", "max_pixels")
_LOWER_IN_RECIPES = "data.batch_size, data.transform.size or the widths of the networks (--set)"


@contextlib.contextmanager
def defended(arguments: Sequence[str]) -> Iterator[None]:
    """Within, an exception that nobody foresaw ends the process with one message and exit code 3.

    With ``SMALTI_DEBUG=1`` it keeps its traceback.

    Args:
        arguments: of the command line, for whoever reads the report.
    """
    try:
        yield
    except Exception as error:
        if os.environ.get(DEBUG) == "1":
            raise
        if isinstance(error, OSError) and error.filename == STANDARD_OUTPUT:  # help, shown before a verb runs
            tell(f"error: {STANDARD_OUTPUT}: {error.strerror}")
            sys.exit(UNWRITTEN)
        tell(_unforeseen(error, arguments))
        sys.exit(UNFORESEEN)


def tell(message: str) -> None:
    """Writes a message to stderr, if there is anybody to read it; what would not be seen in it is spelled out."""
    with contextlib.suppress(OSError, ValueError):
        typer.echo(printable(message, lines=True), err=True)


def _unforeseen(error: Exception, arguments: Sequence[str]) -> str:
    trace = "".join(traceback.format_exception(error))
    said = (str(error).splitlines() or [""])[0]
    what = f"error: something unforeseen happened in smalti ({type(error).__name__}{f': {said}' if said else ''})"
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="smalti-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
        ) as file:
            file.write(f"{_circumstances(arguments)}\n\n{trace}")
    except OSError as failed:
        return f"{what}; its traceback cannot be written to a file ({failed.strerror or failed}):\n{trace}"
    return f"{what}. It is not your mistake; please report it with the file {file.name}"


def _circumstances(arguments: Sequence[str]) -> str:
    from smalti import __version__

    torch = getattr(sys.modules.get("torch"), "__version__", "not imported")
    call = " ".join(map(repr, arguments))
    return f"smalti {__version__}, Python {platform.python_version()}, torch {torch}, {platform.platform()}\n{call}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory of the host or of a device did not suffice, whoever asked for it."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, (RuntimeError, ValueError, OverflowError)) and bool(_NO_MEMORY.search(str(error)))


def memory_message(error: BaseException, command: Any) -> str:
    """That memory did not suffice, and which options of ``command`` to lower."""
    asked = re.search(r"\d+ bytes|[\d.]+ [KMGTPE]i?B", str(error))
    options = [f"--{name.replace('_', '-')}" for name in _LOWER if name in _options(command)]
    if command is not None and "recipe" in _options(command):
        options.append(_LOWER_IN_RECIPES)
    lower = f": lower {' or '.join(options)}" if options else ""
    return f"out of memory{f' ({asked[0]} were asked for)' if asked else ''}{lower}"


def _options(command: Any) -> set[str]:
    """Names of the options of a verb, or of all verbs of a group."""
    inner = getattr(command, "commands", {}).values()
    own = {param.name for param in getattr(command, "params", ())}
    return own.union(*(_options(one) for one in inner)) if inner else own


def take_any_name() -> None:
    """Lets standard output and error take file names of any bytes, and any text in any locale."""
    codecs.register_error("smalti", _bytes_of)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError, OSError):  # not there, closed, or no file
            stream.reconfigure(errors="smalti")  # type: ignore[union-attr]


def _bytes_of(error: UnicodeError) -> tuple[bytes, int]:
    """The bytes that a lone surrogate stands for; anything else that the encoding lacks is spelled out."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = b""
    for character in error.object[error.start : error.end]:
        escaped = 0xDC80 <= ord(character) <= 0xDCFF
        found += character.encode("ascii", "surrogateescape" if escaped else "backslashreplace")
    return found, error.end
