"""What a log step says about the health of a game between two networks, and what to do about it.

Works on the numbers of a log record alone; it knows no loss, model or discriminator by name.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smalti.engine.state import TrainState
from smalti.losses import Loss
from smalti.objectives.phases import Phase
from smalti.objectives.term import Term

SMOOTHING = 0.9
ESTIMATE, SMOOTHED = "critic/estimate", "critic/estimate_smoothed"
Numbers = Mapping[str, float]


@dataclass(frozen=True)
class Alarm:
    """A diagnosis.

    Args:
        name: of it.
        bad: whether the numbers of a phase look so; a number that is missing is nan, and no comparison with it holds.
        patience: log steps in a row after which it is said, once.
        advice: what is said.
    """

    name: str
    bad: Callable[[Callable[[str], float]], bool]
    patience: int
    advice: str


ALARMS = (
    Alarm(
        "starved",
        lambda of: of("clipped") > 0.5 or (of("clipped") >= 0.0 and of("critic/slope_max") < 1e-3),
        3,
        "weight clipping starves the generator: over half of the critic's weights are at the bound, or its slope is "
        "below 1e-3; raise weight_clip, or take a gradient penalty in its place",
    ),
    Alarm(
        "dead",
        lambda of: (
            (max(abs(of("logits_real")), abs(of("logits_fake"))) < 1e-3 or of("critic/slope_max") < 1e-6)
            and not of("clipped") >= 0.0
        ),
        5,
        "the discriminator says nothing: its logits are 0, or the same whatever the image; raise its learning rate, or "
        "let it train before the generator listens (start)",
    ),
    Alarm(
        "wins",
        lambda of: 0.0 <= of("total") < 0.02 and min(of("critic/accuracy_real"), of("critic/accuracy_fake")) > 0.99,
        5,
        "the discriminator wins: it is always right and its loss is near 0, so the generator learns nothing; lower its "
        "learning rate, penalise its slope (r1, gradient_penalty), or augment its images",
    ),
    Alarm(
        "collapsed",
        lambda of: of("critic/diversity") < 0.1,
        3,
        "the made images hardly differ from each other (mode collapse); go back to an earlier checkpoint and lower the "
        "generator's learning rate, or give the critic more updates",
    ),
)


def watch(record: dict[str, Any], phases: Mapping[str, Phase], state: TrainState) -> list[str]:
    """Adds what is smoothed over log steps to ``record``, and returns the warnings that are due.

    Args:
        record: log name -> value, of a training log step; equal on all ranks.
        phases: name -> phase.
        state: remembers averages and how long something has been bad, also over a resumption.
    """
    warnings = []
    for phase in phases:
        prefix = f"train/{phase}/"
        own = {name.removeprefix(prefix): value for name, value in record.items() if name.startswith(prefix)}
        numbers = {name: float(value) for name, value in own.items() if isinstance(value, (int, float))}
        if ESTIMATE in numbers:
            before = state.averages.get(phase, numbers[ESTIMATE])
            state.averages[phase] = SMOOTHING * before + (1.0 - SMOOTHING) * numbers[ESTIMATE]
            record[prefix + SMOOTHED] = state.averages[phase]
        warnings += [f"{phase}: {advice}" for advice in _due(phase, numbers, state)]
    return warnings


def _due(phase: str, numbers: Numbers, state: TrainState) -> Iterator[str]:
    for alarm in ALARMS:
        key = f"{phase}/{alarm.name}"
        bad = alarm.bad(lambda name: numbers.get(name, math.nan))
        state.alarms[key] = state.alarms.get(key, 0) + 1 if bad else 0
        if state.alarms[key] == alarm.patience:
            yield alarm.advice
        if not state.alarms[key]:
            del state.alarms[key]


def standing_warnings(phases: Mapping[str, Phase]) -> list[str]:
    """What is wrong before the first step: batch normalisation where the slope of single samples is penalised."""
    found = []
    for name, phase in phases.items():
        asking = [term.name for term in phase.terms if "discriminator" in term.reads]
        normalised = [
            place for place, part in phase.network.named_modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d)
        ]
        if name != "generator" and asking and normalised:
            found.append(
                f"{name}: the term {asking[0]!r} looks at the slope for single samples, and {normalised[0]} is a batch "
                "normalisation, through which every sample depends on all others; take norm: none or norm: group"
            )
    return found


def accumulation_warnings(phases: Mapping[str, Phase], accumulate: int) -> list[str]:
    """What ``accumulate`` micro-batches do not do as one batch would, since it looks at a batch as a whole."""
    found = []
    for name, phase in phases.items() if accumulate > 1 else ():
        looking = [text for term in phase.terms if (text := _looking(term))]
        layers = [(place, text) for place, part in phase.network.named_modules() if (text := _batch_statistics(part))]
        if layers:
            more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
            looking.append(f"{layers[0][0]}{more}: {layers[0][1]}")
        if looking:
            found.append(
                f"{name}: accumulate: {accumulate} is not one larger batch, for what is looked at in each micro-batch "
                f"by itself ({'; '.join(looking)}); a larger data.batch_size is"
            )
    return found


def _looking(term: Term) -> str:
    """The term and what it looks at of a whole micro-batch; empty if it is a mean over samples, or nothing is known."""
    texts = [term.loss.looks_at(term.bindings)] if isinstance(term.loss, Loss) else []
    texts += ["its adaptive weight is a ratio of norms"] if term.adaptive is not None else []
    known = ", ".join(text for text in texts if text)
    return f"term {term.name!r}: {known}" if known else ""


def _batch_statistics(part: nn.Module) -> str:
    """What a layer that is trained looks at of a whole micro-batch."""
    if isinstance(part, _BatchNorm):
        return "mean and deviation of a batch normalisation" if part.training else ""
    text = getattr(part, "batch_statistics", "")
    return text if isinstance(text, str) else ""


def clipped_shares(parameters: Mapping[str, nn.Parameter], bound: float) -> dict[str, Tensor]:
    """Share of the weights at the bound: ``clipped`` of all, ``clipped/<parameter>`` of each."""
    at_bound = {name: (p.detach().abs() >= bound).sum().double() for name, p in parameters.items()}
    total = sum(p.numel() for p in parameters.values())
    shares = {f"clipped/{name}": count / parameters[name].numel() for name, count in at_bound.items()}
    return {"clipped": sum(at_bound.values(), next(iter(at_bound.values())) * 0) / total, **shares}
