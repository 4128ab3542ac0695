"""Charts as a page draws them: panels with lines of one run or of several, over updates, images or seconds."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

from smalti.report.codes import shares
from smalti.report.panels import HELD_OUT, Panel, Section, late_starts, panels
from smalti.report.run import Run

MOST = 1000  # points of a line; a longer one keeps the extremes of its parts
AXES = ("images", "seconds")
SECTIONS = get_args(Section)


def charts(
    runs: Sequence[Run], names: Sequence[str], say: Callable[[Run, str], None] = lambda run, line: None
) -> dict[str, Any]:
    """What the script of a page draws; ``say`` is told in a line what of a run cannot be read.

    ``runs``: of each its ``name``, the steps ``x.step`` at which it logged anything with ``x.images`` and
    ``x.seconds`` at them, and ``starts`` of late terms. ``panels``: ``title``, ``unit``, ``scale``, ``section`` and
    ``lines``: ``name``, ``of`` (what is switched with it), ``run`` (its number), ``colour`` (a number), ``dashed``,
    ``at`` (indices into ``x.step``) and ``y``. With several runs a panel shows one quantity of all of them. Lines of a
    panel that is not over the course of the run have an ``x`` of their own.
    """
    places = [_places(run) for run in runs]
    drawn = _of_one(runs[0], places[0]) if len(runs) == 1 else _of_several(runs, names, places)
    heads = [
        {"name": name, "x": place, "starts": late_starts(run)}
        for run, name, place in zip(runs, names, places, strict=True)
    ]
    return {"runs": heads, "panels": [*drawn, *_frequencies(runs, names, say)]}


def thinned(values: Sequence[float], most: int = MOST) -> list[int]:
    """Indices of at most about ``most`` values: the first, the last, the least and the largest of equal parts.

    >>> thinned([0, 5, 1, 2, 9, 3, 4, 0], most=6)
    [0, 1, 4, 7]
    """
    if len(values) <= most:
        return list(range(len(values)))
    parts = max(most // 2 - 1, 1)
    kept = {0, len(values) - 1}
    for part in range(parts):
        indices = range(part * len(values) // parts, (part + 1) * len(values) // parts)
        kept |= {min(indices, key=values.__getitem__), max(indices, key=values.__getitem__)}
    return sorted(kept)


def _places(run: Run) -> dict[str, list[float]]:
    """Steps at which anything was logged, and what else counts the course of a run there."""
    rows: dict[int, dict[str, float]] = {}
    for record in run.records:
        row = rows.setdefault(int(record["step"]), {})
        row |= {axis: record[axis] for axis in AXES if isinstance(record.get(axis), (int, float))}
    found: dict[str, list[float]] = {"step": list(rows)}
    for axis in AXES:
        values = [row.get(axis) for row in rows.values()]
        if any(value is not None for value in values):
            found[axis] = values  # type: ignore[assignment]
    return found


def _line(
    name: str, colour: int, steps: Sequence[int], values: Sequence[float], at: Mapping[int, int]
) -> dict[str, Any]:
    kept = thinned(values)
    return {
        "name": name,
        "run": 0,
        "colour": colour,
        "of": name.removesuffix(HELD_OUT),
        "dashed": name.endswith(HELD_OUT),
        "at": [at[steps[index]] for index in kept],
        "y": [float(f"{values[index]:.6g}") for index in kept],
    }


def _head(panel: Panel, title: str) -> dict[str, Any]:
    return {"title": title, "unit": panel.unit, "scale": panel.scale, "section": panel.section}


def _indices(place: Mapping[str, list[float]]) -> dict[int, int]:
    return {int(step): index for index, step in enumerate(place["step"])}


def _of_one(run: Run, place: Mapping[str, list[float]]) -> list[dict[str, Any]]:
    at, found = _indices(place), []
    for panel in panels(run):
        colours = list(dict.fromkeys(label.removesuffix(HELD_OUT) for label in panel.lines))
        lines = [
            _line(label, colours.index(label.removesuffix(HELD_OUT)), *series, at)
            for label, series in panel.lines.items()
        ]
        found.append(_head(panel, panel.title) | {"lines": lines})
    return found


def _of_several(
    runs: Sequence[Run], names: Sequence[str], places: Sequence[Mapping[str, list[float]]]
) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for number, (run, name, place) in enumerate(zip(runs, names, places, strict=True)):
        at = _indices(place)
        for panel in panels(run):
            for label, series in panel.lines.items():
                plain = label.removesuffix(HELD_OUT)
                head = _head(panel, panel.title if plain == panel.title else f"{panel.title}: {plain}")
                shown = found.setdefault((panel.title, plain), head | {"lines": []})
                end = HELD_OUT if label != plain else ""
                shown["lines"].append(_line(f"{name}{end}", number, *series, at) | {"run": number})
    alone = Counter(title for title, _ in found)
    for (title, _), shown in found.items():
        if alone[title] == 1:
            shown["title"] = title
    return sorted(found.values(), key=lambda shown: SECTIONS.index(shown["section"]))


def _frequencies(
    runs: Sequence[Run], names: Sequence[str], say: Callable[[Run, str], None]
) -> Iterable[dict[str, Any]]:
    """How often each code was chosen, the most frequent first: one panel."""
    lines: list[dict[str, Any]] = []
    for number, (run, name) in enumerate(zip(runs, names, strict=True)):
        for label, values in shares(run, partial(say, run)).items():
            kept = _spread(len(values))
            lines.append(
                {
                    "name": label if len(runs) == 1 else f"{name}: {label}",
                    "run": number,
                    "of": label,
                    "colour": len(lines) if len(runs) == 1 else number,
                    "dashed": False,
                    "x": [index + 1 for index in kept],
                    "y": [float(f"{100 * values[index]:.4g}") for index in kept],
                }
            )
    if lines:
        title = "How often each code is chosen, the most frequent first"
        yield {
            "title": title,
            "unit": "% of tokens",
            "scale": "log",
            "section": "codebook",
            "lines": lines,
            "x": "code",
        }


def _spread(count: int, most: int = MOST) -> list[int]:
    """Indices below ``count``: all, or about ``most`` of them, evenly by their ratio.

    >>> _spread(3), _spread(10_000, 5)
    ([0, 1, 2], [0, 9, 99, 999, 9999])
    """
    if count <= most:
        return list(range(count))
    return sorted({round(count ** (index / (most - 1))) - 1 for index in range(most)})
