"""What a log record says beside its numbers: a smoothed estimate, weights at their bound, what accumulation changes.

What is wrong with a run is said by the rules of :mod:`smalti.diagnosis`.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from smalti.engine.state import TrainState
from smalti.losses import Loss
from smalti.objectives.phases import Phase
from smalti.objectives.term import Term

SMOOTHING = 0.9
ESTIMATE, SMOOTHED = "critic/estimate", "critic/estimate_smoothed"


def smooth(record: dict[str, Any], phases: Mapping[str, Phase], state: TrainState) -> None:
    """Adds what is smoothed over log steps to ``record``.

    Args:
        record: log name -> value, of a training log step; equal on all ranks.
        phases: name -> phase.
        state: remembers averages, also over a resumption.
    """
    for phase in phases:
        value = record.get(f"train/{phase}/{ESTIMATE}")
        if isinstance(value, (int, float)):
            before = state.averages.get(phase, value)
            state.averages[phase] = SMOOTHING * before + (1.0 - SMOOTHING) * value
            record[f"train/{phase}/{SMOOTHED}"] = state.averages[phase]


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
