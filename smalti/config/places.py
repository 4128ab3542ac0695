"""Folders and files as users name them: ``~`` is their home, and what no file system of this machine has is said."""

import os
import re
from pathlib import Path

from smalti.registry import UserError

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")  # two letters or more: one is a drive; a path has lost a slash
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})")


def local(path: str | Path) -> Path:
    """A path with ``~`` and ``~name`` replaced by the home folder.

    >>> local("runs/mine").as_posix()
    'runs/mine'
    """
    path = Path(path)
    return path.expanduser() if path.parts[:1] and path.parts[0].startswith("~") and not path.exists() else path


def to_write(path: str | Path) -> Path:
    """A local path to write to.

    Raises:
        UserError: for an address such as ``s3://bucket/run``, which would become folders called so.
    """
    found = _ADDRESS.match(str(path))
    if found is not None:
        raise UserError(
            f"{path}: an address ({found[1]}:); expected a path on this machine, files are written to those"
        )
    return local(path)


def why_missing(path: str) -> str:
    """What is odd about a path that does not exist, to follow a message; empty if nothing is.

    >>> why_missing("photos")
    ''
    """
    if _ADDRESS.match(path):
        return ": an address; expected a path on this machine, copy the files there first"
    unset = _VARIABLE.search(path)
    if unset is not None:
        filled = os.path.expandvars(path)
        hint = f", as {filled}" if filled != path else ""
        return f"; variables as {unset[0]} are not filled in: write the path itself{hint}"
    if any(character in path for character in "*?"):
        return "; expected the folder itself, without a pattern: it is searched for all images"
    return ""
