"""What leaves the process: files that are whole and the user's own, JSON and names that every program can read."""

import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished-"
_NO_CHARACTERS = re.compile("[\ud800-\udc7f\udd00-\udfff]")
# Controls, marks that turn the direction of writing, and separators that some programs take for the end of a line.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def printable(name: object, *, lines: bool = False) -> str:
    r"""A name as text that can be written anywhere: what is no text in it, or would not be seen, is spelled out.

    File names are bytes. Python keeps those that are not UTF-8 as lone surrogates, which no file and no terminal takes.

    >>> print(printable("caf\udce9.png"), printable("two\nlines"), printable("caf\udcc3\udca9"))
    caf\xe9.png two\x0alines café

    Args:
        name: text, or a path.
        lines: whether ends of lines and tabs stay as they are, as in a message.
    """
    text = decodable(str(name))
    return _UNSEEN.sub(lambda found: found[0] if lines and found[0] in "\n\t" else _spelled(found[0]), text)


def decodable(text: str) -> str:
    """Text with what is no text in it spelled out: lone surrogates, which stand for bytes that are not UTF-8."""
    if text.isascii():
        return text
    text = _NO_CHARACTERS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _spelled(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def finite(value: Any) -> Any:
    """The same value with None for every number that is not finite, and text that is text, however deep it lies.

    >>> finite({"psnr": float("nan"), "rows": [{"lpips": float("inf")}, 0.5]})
    {'psnr': None, 'rows': [{'lpips': None}, 0.5]}
    """
    if isinstance(value, Mapping):
        return {finite(name): finite(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    if isinstance(value, str):
        return decodable(value)
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


NAME = ' style="text-align: left"'  # notebooks put all cells to the right, as numbers should be


def html_table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """A table for a notebook or a page, its first column of names; all text is escaped.

    >>> html_table(["", "psnr"], [["a<b", "20"]]).replace(NAME, "")
    '<table><tr><th></th><th>psnr</th></tr><tr><td>a&lt;b</td><td>20</td></tr></table>'
    """
    lines = [_html_row("th", header), *(_html_row("td", row) for row in rows)]
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}{''.join(lines)}</table>"


def _html_row(tag: str, cells: Sequence[str]) -> str:
    marks = (f"<{tag}{'' if place else NAME}>{escape(cell)}</{tag}>" for place, cell in enumerate(cells))
    return f"<tr>{''.join(marks)}</tr>"
