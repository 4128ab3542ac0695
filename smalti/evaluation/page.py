"""A comparison as one HTML page that needs nothing else: a table that sorts, rate against distortion, worst images."""

import html
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from smalti.evaluation._plot import plot
from smalti.evaluation.comparison import Comparison, cells, footnotes
from smalti.evaluation.pictures import found_in
from smalti.pages import data_uri, scripts, style

RATE, DISTORTION = "bits_per_pixel", "psnr"
WORST = 8


def page(
    comparison: Comparison, folders: Sequence[Path | None] = (), words: Callable[[str], str] = lambda name: name
) -> str:
    """The page; text from results is escaped, pictures are in it, nothing is fetched.

    Args:
        comparison: what is shown.
        folders: where the pictures of each result lie, None where there are none.
        words: what people call a number, of its name.
    """
    template = (resources.files("smalti.evaluation") / "comparison.html").read_text(encoding="utf-8")
    parts = {
        "STYLE": style(),
        "SCRIPT": scripts(),
        "TABLE": _table(comparison, words),
        "NOTES": "".join(f"<p>{html.escape(line)}</p>" for line in footnotes(comparison)),
        "PLOT": _plot(comparison),
        "WORST": _worst(comparison, folders or [None] * len(comparison.results)),
    }
    for name, text in parts.items():
        template = template.replace(f"<!--{name}-->", text)
    return template


def _table(comparison: Comparison, words: Callable[[str], str]) -> str:
    (first, *names), *rows = cells(comparison)
    lines = [
        "<thead><tr>",
        _head(first, first),
        *(_head(name, words(name)) for name in names),
        "</tr></thead><tbody>",
    ]
    for index, row in enumerate(rows):
        values = [comparison.value(index, number) for number in comparison.numbers]
        texts = [f"<td>{html.escape(row[0])}</td>"]
        for number, value, text in zip(comparison.numbers, values, row[1:], strict=True):
            between = comparison.results[index].intervals.get(number)
            title = f' title="95 %: {between[0]:.5g} to {between[1]:.5g}"' if between else ""
            key = "" if value is None else f' data-value="{value!r}"'
            texts.append(f"<td{key}{title}>{html.escape(text)}</td>")
        lines += ["<tr>", *texts, "</tr>"]
    return "".join([*lines, "</tbody>"])


def _head(name: str, called: str) -> str:
    return f'<th title="{html.escape(name)}"><button>{html.escape(called)}</button></th>'


def _plot(comparison: Comparison) -> str:
    """Rate and distortion of all that have both."""
    points = [
        (name, comparison.value(row, RATE), comparison.value(row, DISTORTION))
        for row, name in enumerate(comparison.names)
    ]
    known = [(name, x, y) for name, x, y in points if x is not None and y is not None]
    return plot(known) if known else f"<p>No result has both {RATE} and {DISTORTION}.</p>"


def _worst(comparison: Comparison, folders: Sequence[Path | None]) -> str:
    """The images with the lowest PSNR of each tokenizer, with their pictures where there are any."""
    lines = []
    for name, result, folder in zip(comparison.names, comparison.results, folders, strict=True):
        rows = result.worst(DISTORTION, WORST)
        if not rows:
            continue
        pictures = [] if folder is None else found_in(folder, rows)
        seen = {int(row["index"]) for row, _, _ in pictures}
        sliders = (_slider(row, original, made) for row, original, made in pictures)
        items = (f"<li>{_called(row)}: {_decibels(row)}</li>" for row in rows if int(row["index"]) not in seen)
        lines.append(
            f"<h3>{html.escape(name)}</h3><div class=pairs>{''.join(sliders)}</div><ol start={len(seen) + 1}>"
            f"{''.join(items)}</ol>"
        )
    return "".join(lines) or "<p>No result has values of single images.</p>"


def _called(row: Mapping[str, Any]) -> str:
    return html.escape(str(row.get("name", row["index"])))


def _decibels(row: Mapping[str, Any]) -> str:
    return f"{row[DISTORTION]:.2f} dB"


def _slider(row: Mapping[str, Any], original: Path, made: Path) -> str:
    """Two pictures on top of each other, a slider that uncovers the lower one."""
    name = _called(row)
    below, above = (data_uri(path.read_bytes(), path.suffix) for path in (made, original))
    return (
        f'<figure><div class=pair><img src="{below}" alt="{name}, made"><img src="{above}" alt="{name}, original">'
        "</div><input class=cut type=range min=0 max=100 value=50 "
        f'aria-label="{name}: original on the left, made on the right">'
        f"<div class=sides><span>original</span><span>made</span></div><figcaption>{name}: {_decibels(row)}"
        "</figcaption></figure>"
    )
