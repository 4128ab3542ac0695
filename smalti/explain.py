"""An exception of anybody's code as one sentence: what it is, what it says, and where it was raised."""

import os
import sysconfig
import traceback
from pathlib import Path

_OWN = Path(__file__).parent
_LIBRARIES = ("site-packages", "dist-packages")
_MOST = 500


def explain(error: BaseException) -> str:
    """Type, message and place of an exception; the place is the last one in code that is no library's, if any is.

    >>> try:
    ...     {}["tile"]
    ... except KeyError as error:
    ...     explain(error).partition(" (")[0]
    "KeyError: 'tile'"
    """
    text = str(error).strip()
    if "Original Traceback" in text:  # from another process; its own last line says what it was
        text = text.splitlines()[-1]
    text = text if len(text) <= _MOST else f"{text[:_MOST]}..."
    words = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return words + _place(error)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return ""
    own = [frame for frame in frames if not _is_library(frame.filename)]
    frame = (own or frames)[-1]
    return f" ({os.path.basename(frame.filename)}, line {frame.lineno})"


def _is_library(name: str) -> bool:
    path = Path(name)
    if not path.is_absolute() or not set(_LIBRARIES).isdisjoint(path.parts):
        return True
    return path.is_relative_to(_OWN) or path.is_relative_to(sysconfig.get_path("stdlib"))
