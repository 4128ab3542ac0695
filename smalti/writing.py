"""What leaves the process: files that are whole and the user's own, and JSON that every program can read."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished-"


def finite(value: Any) -> Any:
    """The same value with None for every number that is not finite, however deep it lies.

    >>> finite({"psnr": float("nan"), "rows": [{"lpips": float("inf")}, 0.5]})
    {'psnr': None, 'rows': [{'lpips': None}, 0.5]}
    """
    if isinstance(value, Mapping):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, indent: int | None = 1) -> str:
    """JSON text of plain values. Numbers that are not finite are null, since JSON has no word for them.

    >>> to_json({"step": 3, "psnr": float("inf")}, indent=None)
    '{"step": 3, "psnr": null}'
    """
    return json.dumps(finite(value), indent=indent, allow_nan=False)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a neighbour of ``path`` to write to, which takes its place at the end: whole, or not at all.

    Whoever writes (safetensors keeps its files to the owner), the file has the permissions that the user's umask gives.

    Raises:
        OSError: if it cannot be written; what was at ``path`` is untouched.
    """
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        unfinished.unlink(missing_ok=True)
        unfinished.touch()
        permissions = unfinished.stat().st_mode & 0o777
        yield unfinished
        unfinished.chmod(permissions)
        flush_to_disk(unfinished)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Writes a file by way of a neighbour, so that a full disk cannot cut short what was there."""
    with whole(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def flush_to_disk(path: Path) -> None:
    """Returns when the file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
