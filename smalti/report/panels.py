"""What is drawn of a run: panels of lines, from the numbers that it logged. Curves and charts draw the same ones."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from smalti.report.run import Run
from smalti.report.words import quantity

GENERATOR = "train/generator/"
HELD_OUT = ", held-out"  # behind the label of a line that was measured on images kept apart
_CODEBOOK = "train/codebook/"
_OF_CODES = ("codebook_usage", "perplexity", "codebook_report", "bits_per_image", "bits_per_image_effective")
_BITS = {"as stored": "val/bits_per_image", "entropy-coded": "val/bits_per_image_effective"}

Lines = Mapping[str, tuple[list[int], list[float]]]
Section = Literal["quality", "terms", "adversary", "codebook", "machine"]


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One set of axes.

    Args:
        title: what is shown.
        unit: label of the vertical axis.
        lines: label -> steps and values.
        section: what it belongs to.
        scale: of the vertical axis at first.
        summary: whether it belongs to the picture that stands for the run, too.
    """

    title: str
    unit: str
    lines: Lines
    section: Section
    scale: Literal["linear", "log"] = "linear"
    summary: bool = True


def panels(run: Run) -> list[Panel]:
    """The panels of all that a run logged; one without data is left out."""
    found = [panel for builder in _BUILDERS for panel in builder(run) if panel.lines]
    return [panel for panel in found if panel.section != "quality" or not _is_one_point(panel)] or found


def _is_one_point(panel: Panel) -> bool:
    return all(len(steps) == 1 for steps, _ in panel.lines.values())


def late_starts(run: Run) -> dict[str, int]:
    """Generator terms that waited at the first log line -> the first logged step at which they weighed something."""
    found = {}
    for key in run.keys(GENERATOR, "/weight"):
        steps, weights = run.series(key)
        first = next((step for step, weight in zip(steps, weights, strict=True) if weight), None)
        if first is not None and weights[0] == 0:
            found[key.removeprefix(GENERATOR).removesuffix("/weight")] = first
    return found


def _logged(run: Run, labels: Mapping[str, str], scale: float = 1.0) -> dict[str, tuple[list[int], list[float]]]:
    """Label -> series of the logged quantity, for those that were logged."""
    found = {}
    for label, key in labels.items():
        steps, values = run.series(key)
        if steps:
            found[label] = steps, [scale * value for value in values]
    return found


def _between(run: Run, prefix: str, suffix: str) -> dict[str, str]:
    return {key.removeprefix(prefix).removesuffix(suffix): key for key in run.keys(prefix, suffix)}


def _sizes(run: Run, labels: Mapping[str, str]) -> Lines:
    """Absolute values without zeros: a log axis has none, and a waiting term begins where it starts."""
    found = {}
    for label, (steps, values) in _logged(run, labels).items():
        pairs = [(step, abs(value)) for step, value in zip(steps, values, strict=True) if value]
        if pairs:
            found[label] = [step for step, _ in pairs], [value for _, value in pairs]
    return found


def _terms(run: Run) -> Iterator[Panel]:
    unit = "|weight x value|"
    for phase, title in (("generator", "Generator terms"), ("discriminator", "Discriminator terms")):
        labels: dict[str, str] = {}
        for place, end in (("train", ""), ("val", HELD_OUT)):
            own = {"total": f"{place}/{phase}/total"} | _between(run, f"{place}/{phase}/", "/weighted")
            if len(own) == 2:
                del own["total"]  # of one term
            labels |= {f"{label}{end}": key for label, key in own.items()}
        lines = _sizes(run, labels)
        yield Panel(title=title, unit=unit, lines=lines, section="terms", scale="log", summary=phase == "generator")


def _quality(run: Run) -> Iterator[Panel]:
    """A panel for each kind of number that was measured on held-out images: decibels together, others alone."""
    phases = {key.split("/")[1] for key in run.keys("train/")}
    for place, end in (("val/", HELD_OUT), ("train/", "")):
        groups: dict[tuple[str, str], dict[str, str]] = {}
        for key in run.keys(place):
            metric, _, rest = key.removeprefix(place).partition("/")
            known = None if metric in phases or metric in _OF_CODES else quantity(metric)
            if known is not None:
                name, unit, _ = known
                title = "PSNR" if unit == "dB" else name[0].upper() + name[1:]
                groups.setdefault((title, unit), {})[f"{rest or name}{end}"] = key
        for (title, unit), labels in groups.items():
            lines = _logged(run, labels, 100.0 if unit == "%" else 1.0)
            words = f"{unit or 'value'}, {'held-out images' if place == 'val/' else 'training images'}"
            yield Panel(title=title, unit=words, lines=lines, section="quality", summary=unit == "dB")


def _adversary(run: Run) -> Iterator[Panel]:
    share = _logged(run, {"adversary": f"{GENERATOR}gradient_norm/adversarial_share"}, 100.0)
    yield Panel(title="Adversary's share of the gradient", unit="%", lines=share, section="adversary")
    factors = _logged(run, _between(run, GENERATOR, "/adaptive"))
    yield Panel(title="Adaptive weight", unit="factor", lines=factors, section="adversary", scale="log")
    kinds = ("real", "fake")
    logits = _logged(run, {kind: f"train/discriminator/logits_{kind}" for kind in kinds})
    yield Panel(title="Discriminator's logits", unit="mean logit", lines=logits, section="adversary")
    right = _logged(run, {kind: f"train/discriminator/critic/accuracy_{kind}" for kind in kinds}, 100.0)
    yield Panel(title="Discriminator is right", unit="%", lines=right, section="adversary", summary=False)


def _codebooks(run: Run) -> Iterator[Panel]:
    for name, title, unit, scale in (
        ("usage", "Codebook usage", "codes in use (%)", 100.0),
        ("perplexity", "Codebook perplexity", "effective number of codes", 1.0),
    ):
        held = "codebook_usage" if name == "usage" else name
        labels = _between(run, _CODEBOOK, f"/{name}")
        labels |= {f"{label}{HELD_OUT}": key for label, key in _between(run, f"val/{held}/", "").items()}
        yield Panel(title=title, unit=unit, lines=_logged(run, labels, scale), section="codebook")
    bits = _logged(run, {f"{label}{HELD_OUT}": key for label, key in _BITS.items()})
    yield Panel(title="Bits per image", unit="bit", lines=bits, section="codebook", summary=False)


def _machine(run: Run) -> Iterator[Panel]:
    phases = {key.split("/")[1]: key for key in run.keys("train/", "/gradient_norm")}
    yield Panel(
        title="Gradient norm", unit="norm", lines=_sizes(run, phases), section="machine", scale="log", summary=False
    )
    rates = {key.split("/")[1]: key for key in run.keys("train/", "/learning_rate")}
    yield Panel(title="Learning rate", unit="rate", lines=_logged(run, rates), section="machine", summary=False)
    speed = _logged(run, {"training": "images_per_second"})
    yield Panel(title="Speed", unit="images / s", lines=speed, section="machine")
    memory = _logged(run, {"host": "memory", "device": "device_memory"})
    yield Panel(title="Memory", unit="MiB", lines=memory, section="machine", summary=False)


_BUILDERS: tuple[Callable[[Run], Iterator[Panel]], ...] = (_quality, _terms, _adversary, _codebooks, _machine)
