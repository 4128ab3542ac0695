"""A comparison as one HTML page that needs nothing else: a table that sorts, rate against distortion, worst images."""

import html
from collections.abc import Sequence
from importlib import resources

from smalti.evaluation.comparison import Comparison, cells, footnotes

RATE, DISTORTION = "bits_per_pixel", "psnr"
WORST = 8
WIDTH, HEIGHT, MARGIN = 640, 360, 56


def page(comparison: Comparison) -> str:
    """The page; text from results is escaped, nothing is fetched."""
    template = (resources.files("smalti.evaluation") / "comparison.html").read_text(encoding="utf-8")
    parts = {
        "TABLE": _table(comparison),
        "NOTES": "".join(f"<p>{html.escape(line)}</p>" for line in footnotes(comparison)),
        "PLOT": _plot(comparison),
        "WORST": _worst(comparison),
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


def _worst(comparison: Comparison) -> str:
    """The images with the lowest PSNR of each tokenizer, beside what the others make of them."""
    lines = []
    for name, result in zip(comparison.names, comparison.results, strict=True):
        rows = result.worst(DISTORTION, WORST)
        if not rows:
            continue
        items = "".join(
            f"<li>{html.escape(str(row.get('name', row['index'])))}: {row[DISTORTION]:.2f} dB</li>" for row in rows
        )
        lines.append(f"<section><h3>{html.escape(name)}</h3><ol>{items}</ol></section>")
    return "".join(lines) or "<p>No result has values of single images.</p>"
