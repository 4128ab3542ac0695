"""A comparison as one HTML page that needs nothing else: a table that sorts, rate against distortion, worst images."""

import base64
import html
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from smalti.evaluation.comparison import Comparison, cells, footnotes
from smalti.evaluation.pictures import found_in

RATE, DISTORTION = "bits_per_pixel", "psnr"
WORST = 8
WIDTH, HEIGHT, MARGIN = 640, 360, 56


def page(comparison: Comparison, folders: Sequence[Path | None] = ()) -> str:
    """The page; text from results is escaped, pictures are in it, nothing is fetched.

    Args:
        comparison: what is shown.
        folders: where the pictures of each result lie, None where there are none.
    """
    template = (resources.files("smalti.evaluation") / "comparison.html").read_text(encoding="utf-8")
    parts = {
        "TABLE": _table(comparison),
        "NOTES": "".join(f"<p>{html.escape(line)}</p>" for line in footnotes(comparison)),
        "PLOT": _plot(comparison),
        "WORST": _worst(comparison, folders or [None] * len(comparison.results)),
    }
    for name, text in parts.items():
        template = template.replace(f"<!--{name}-->", text)
    return template


def _table(comparison: Comparison) -> str:
    head, *rows = cells(comparison)
    lines = [
        "<thead><tr>",
        *(f"<th><button>{html.escape(name)}</button></th>" for name in head),
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


def _plot(comparison: Comparison) -> str:
    """Rate and distortion of all that have both, as points of an SVG."""
    points = [
        (name, comparison.value(row, RATE), comparison.value(row, DISTORTION))
        for row, name in enumerate(comparison.names)
    ]
    known = [(name, x, y) for name, x, y in points if x is not None and y is not None]
    if not known:
        return f"<p>No result has both {RATE} and {DISTORTION}.</p>"
    xs, ys = [x for _, x, _ in known], [y for _, _, y in known]
    lines = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{DISTORTION} against {RATE}">']
    lines.append(f'<path d="M{MARGIN} 16V{HEIGHT - MARGIN}H{WIDTH - 16}" fill="none" stroke="currentColor"/>')
    for axis, values in ((0, xs), (1, ys)):
        lines += [_tick(axis, value, values) for value in sorted({min(values), max(values)})]
    for name, x, y in known:
        left, top = _place(x, xs, 0), _place(y, ys, 1)
        lines.append(f'<circle cx="{left:.1f}" cy="{top:.1f}" r="5"><title>{html.escape(name)}</title></circle>')
        lines.append(f'<text x="{left + 8:.1f}" y="{top + 4:.1f}">{html.escape(name)}</text>')
    lines.append(f'<text x="{WIDTH - 16}" y="{HEIGHT - 10}" text-anchor="end">bits per pixel</text>')
    lines.append('<text x="8" y="12">PSNR, dB</text></svg>')
    return "".join(lines)


def _place(value: float, values: Sequence[float], axis: int) -> float:
    low, high = min(values), max(values)
    share = 0.5 if high == low else (value - low) / (high - low)
    if axis == 0:
        return MARGIN + 24 + share * (WIDTH - MARGIN - 160)
    return HEIGHT - MARGIN - 24 - share * (HEIGHT - MARGIN - 64)


def _tick(axis: int, value: float, values: Sequence[float]) -> str:
    at = _place(value, values, axis)
    if axis == 0:
        return f'<text x="{at:.1f}" y="{HEIGHT - MARGIN + 18}" text-anchor="middle">{value:.3g}</text>'
    return f'<text x="{MARGIN - 6}" y="{at + 4:.1f}" text-anchor="end">{value:.4g}</text>'


def _worst(comparison: Comparison, folders: Sequence[Path | None]) -> str:
    """The images with the lowest PSNR of each tokenizer, with their pictures where there are any."""
    lines = []
    for name, result, folder in zip(comparison.names, comparison.results, folders, strict=True):
        rows = result.worst(DISTORTION, WORST)
        if not rows:
            continue
        items = (f"<li>{_called(row)}: {row[DISTORTION]:.2f} dB</li>" for row in rows)
        pictures = [] if folder is None else found_in(folder, rows)
        sliders = (_slider(_called(row), original, made) for row, original, made in pictures)
        lines.append(f"<h3>{html.escape(name)}</h3><ol>{''.join(items)}</ol><div class=pairs>{''.join(sliders)}</div>")
    return "".join(lines) or "<p>No result has values of single images.</p>"


def _called(row: Mapping[str, Any]) -> str:
    return html.escape(str(row.get("name", row["index"])))


def _slider(name: str, original: Path, made: Path) -> str:
    """Two pictures on top of each other, a slider that uncovers the lower one."""
    below, above = (
        f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}" for path in (original, made)
    )
    return (
        f'<figure><div class=pair><img src="{below}" alt="{name}, original"><img src="{above}" alt="{name}, made">'
        f'</div><input type=range min=0 max=100 value=50 aria-label="{name}: made on the left, original on the right">'
        f"<figcaption>{name}: made | original</figcaption></figure>"
    )
