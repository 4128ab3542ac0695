"""The curve picture of a run: what each term weighs, how good the reconstruction is, what the adversary contributes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smalti.registry import UserError
from smalti.report.run import Run
from smalti.writing import whole

_COLUMNS = 2
_GENERATOR = "train/generator/"
_CODEBOOK = "train/codebook/"

Lines = Mapping[str, tuple[list[int], list[float]]]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of axes.

    Args:
        title: what is shown.
        unit: label of the vertical axis.
        lines: label -> steps and values, from what a run logged.
        scale: of the vertical axis, linear or log.
    """

    title: str
    unit: str
    lines: Callable[[Run], Lines]
    scale: str = "linear"


def draw_curves(run: Run, path: Path) -> Path:
    """Writes a PNG with a panel for each thing the run logged; a panel without data is left out.

    Raises:
        UserError: if matplotlib is not installed, or the run has logged nothing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("the report needs matplotlib: pip install 'smalti[report]'") from error
    panels = [(panel, lines) for panel in _PANELS if (lines := panel.lines(run))]
    if not panels:
        raise UserError(f"{run.folder}: nothing to draw, metrics.jsonl holds no numbers yet")
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(12, 3.5 * rows), layout="constrained")
    last = run.records[-1]
    figure.suptitle(f"{run.folder.resolve().name}: {last['step']:,} updates, {last.get('images', 0):,} images")
    starts = late_starts(run)
    for index, (panel, lines) in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, _COLUMNS, index)
        _draw(axes, panel, lines, starts)
        axes.set_xlim(0, 1.02 * max(last["step"], 1))
    with whole(path) as unfinished:
        figure.savefig(unfinished, dpi=110)
    return path


def _draw(axes: Any, panel: Panel, lines: Lines, starts: Mapping[str, int]) -> None:
    for label, (steps, values) in lines.items():
        axes.plot(steps, values, label=label, linewidth=1.6, marker="o" if len(steps) < 20 else None, markersize=4)
    for name, step in starts.items():
        axes.axvline(step, color="0.5", linestyle=":", linewidth=1.2, label=f"{name} starts")
    axes.set_title(panel.title, fontsize=11)
    axes.set_ylabel(panel.unit)
    axes.set_xlabel("generator updates")
    axes.set_yscale(panel.scale)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, framealpha=0.8)


def late_starts(run: Run) -> dict[str, int]:
    """Generator terms that waited at the first log line -> the first logged step at which they weighed something."""
    found = {}
    for key in run.keys(_GENERATOR, "/weight"):
        steps, weights = run.series(key)
        first = next((step for step, weight in zip(steps, weights, strict=True) if weight), None)
        if first is not None and weights[0] == 0:
            found[key.removeprefix(_GENERATOR).removesuffix("/weight")] = first
    return found


def _drawn(run: Run, labels: Mapping[str, str], scale: float = 1.0) -> Lines:
    """Label -> series of the logged quantity, for those that were logged."""
    found = {}
    for label, key in labels.items():
        steps, values = run.series(key)
        if steps:
            found[label] = steps, [scale * value for value in values]
    return found


def _between(run: Run, prefix: str, suffix: str) -> dict[str, str]:
    return {key.removeprefix(prefix).removesuffix(suffix): key for key in run.keys(prefix, suffix)}


def _terms(run: Run) -> Lines:
    found = {}
    for label, (steps, values) in _drawn(run, _between(run, _GENERATOR, "/weighted")).items():
        pairs = [(step, abs(value)) for step, value in zip(steps, values, strict=True) if value]
        if pairs:  # a log axis has no zero: a waiting term begins where it starts
            found[label] = [step for step, _ in pairs], [value for _, value in pairs]
    return found


def _psnr(run: Run) -> Lines:
    return _drawn(run, {key.removesuffix("/psnr"): key for key in run.keys(suffix="/psnr")})


def _share(run: Run) -> Lines:
    return _drawn(run, {"adversarial / (adversarial + rest)": f"{_GENERATOR}gradient_norm/adversarial_share"}, 100.0)


def _adaptive(run: Run) -> Lines:
    return _drawn(run, _between(run, _GENERATOR, "/adaptive"))


def _usage(run: Run) -> Lines:
    return _drawn(run, _between(run, _CODEBOOK, "/usage"), 100.0)


def _perplexity(run: Run) -> Lines:
    return _drawn(run, _between(run, _CODEBOOK, "/perplexity"))


def _logits(run: Run) -> Lines:
    return _drawn(run, {kind: f"train/discriminator/logits_{kind}" for kind in ("real", "fake")})


def _speed(run: Run) -> Lines:
    return _drawn(run, {"training": "images_per_second"})


_PANELS = (
    Panel(title="Generator terms", unit="|weight x value|, log scale", lines=_terms, scale="log"),
    Panel(title="Reconstruction of held-out images", unit="PSNR (dB)", lines=_psnr),
    Panel(title="Gradient norm at the last layer", unit="adversary's share (%)", lines=_share),
    Panel(title="Adaptive weight", unit="factor, log scale", lines=_adaptive, scale="log"),
    Panel(title="Codebook usage", unit="codes in use (%)", lines=_usage),
    Panel(title="Codebook perplexity", unit="effective number of codes", lines=_perplexity),
    Panel(title="Discriminator", unit="mean logit", lines=_logits),
    Panel(title="Speed", unit="images / s", lines=_speed),
)
