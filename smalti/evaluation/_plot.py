"""Rate against distortion as a drawing: points with their names, and a line through the qualities of one codec."""

import html
import math
from collections.abc import Iterator, Sequence
from itertools import groupby

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 28, 48
LETTER, LINE = 7.2, 14.0  # about the size of a letter of 12 pixels
TICKS = 6  # at most about so many on an axis

Point = tuple[str, float, float]
Box = tuple[float, float, float, float]


def plot(points: Sequence[Point]) -> str:
    """An SVG of points (name, bits per pixel, PSNR in dB), at least one; names stand where they cover no other."""
    across, up = ticks([rate for _, rate, _ in points]), ticks([decibels for _, _, decibels in points])
    placed = [(name, _x(rate, across), _y(decibels, up)) for name, rate, decibels in points]
    lines = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="PSNR against bits per pixel">']
    for value in across:
        x = _x(value, across)
        lines.append(f'<path class="grid" d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        lines.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value:.6g}</text>')
    for value in up:
        y = _y(value, up)
        lines.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>')
    for _, family in groupby(sorted(placed, key=lambda point: (_family(point[0]), point[1])), lambda p: _family(p[0])):
        line = " ".join(f"{x:.1f},{y:.1f}" for _, x, y in family)
        if " " in line:
            lines.append(f'<polyline points="{line}"/>')
    lines += _labels(placed)
    lines.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">bits per pixel</text>')
    lines.append('<text x="8" y="14">PSNR, dB</text></svg>')
    return "".join(lines)


def ticks(values: Sequence[float]) -> list[float]:
    """Round numbers, evenly spaced, the first at most the least of ``values`` and the last at least the largest.

    Example:
        >>> ticks([26.8, 37.4]), ticks([0.1, 0.2])
        ([26.0, 28.0, 30.0, 32.0, 34.0, 36.0, 38.0], [0.1, 0.12, 0.14, 0.16, 0.18, 0.2])
    """
    low, high = min(values), max(values)
    if high - low < 1e-6 * max(abs(low), abs(high), 1e-3):
        low, high = low - 0.1 * (abs(low) or 1.0), high + 0.1 * (abs(high) or 1.0)
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= 0.999 * rough)
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [float(f"{number * step:.6g}") for number in range(first, last + 1)]


def _x(value: float, at: Sequence[float]) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - at[0]) / (at[-1] - at[0])


def _y(value: float, at: Sequence[float]) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - at[0]) / (at[-1] - at[0])


def _family(name: str) -> str:
    """``jpeg:`` of ``jpeg:q=50``; of what is no quality of a codec the name itself."""
    codec, mark, _ = name.partition(":q=")
    return f"{codec}:" if mark else f"={name}"


def _labels(placed: Sequence[Point]) -> list[str]:
    """Circles and names, each where there is room; right of its point if there is none."""
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for _, x, y in placed]
    lines = []
    for name, x, y in placed:
        wide = LETTER * len(name)
        boxes = [(left, base - LINE + 3, left + wide, base + 3) for left, base in _places(x, y, wide)]
        found = next((box for box in boxes if _fits(box) and not any(_meet(box, other) for other in taken)), boxes[0])
        taken.append(found)
        text = html.escape(name)
        lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5"><title>{text}</title></circle>')
        lines.append(f'<text class="name" x="{found[0]:.1f}" y="{found[3] - 3:.1f}">{text}</text>')
    return lines


def _places(x: float, y: float, wide: float) -> Iterator[tuple[float, float]]:
    """Where a name of this width may begin, the best first: beside the point, above, below, then farther off."""
    for far in (0.0, LINE, 2 * LINE, 3 * LINE):
        for base in (y + 4 - far, y + 4 + far):
            yield x + 9, base
            yield x - 9 - wide, base
        yield x - wide / 2, y - 10 - far
        yield x - wide / 2, y + 20 + far


def _fits(box: Box) -> bool:
    return box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
