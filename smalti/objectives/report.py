"""What a phase reports of one pass: each term raw and weighted, the total, measures. Detached, on the device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

Status = Literal["active", "waiting", "skipped", "not computed"]


@dataclass(frozen=True, kw_only=True)
class TermReport:
    """One term of one pass; everything detached.

    Args:
        raw: the loss before its weight, a scalar; None if it was not evaluated.
        weight: the effective weight, adaptive factor included; 0 while waiting, None if it has none.
        weighted: what it adds to the total, a scalar; None if it adds nothing.
        state: what was decided before the device computed anything.
        skipped: 0-dim bool tensor: a non-finite adaptive factor took the term out of this pass.
        parts: name -> scalar that the loss reports beside its total.
        inputs: what the loss was given and the parts it reported, kept only for losses with state of their own.
    """

    raw: Tensor | None = None
    weight: float | Tensor | None = 0.0
    weighted: Tensor | None = None
    state: Status = "active"
    skipped: Tensor | None = None
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None

    @property
    def status(self) -> Status:
        """What became of the term. Reading it waits for the device if the term has an adaptive factor."""
        return "skipped" if self.skipped is not None and bool(self.skipped) else self.state


@dataclass(frozen=True, kw_only=True)
class LossReport:
    """One pass of a phase; everything detached.

    Args:
        terms: term name -> report, in the order of the recipe.
        total: sum of the weighted active terms, a scalar.
        measures: name -> scalar: adaptive factors, clamp hits, gradient norms at the last layer, mean logits.
        fake: the judged images with shape (B, C, H, W), for the discriminator phase to reuse.
        output: the model's output, for ``update`` and for metrics.
    """

    terms: Mapping[str, TermReport]
    total: Tensor
    measures: Mapping[str, Tensor] = field(default_factory=dict)
    fake: Tensor | None = None
    output: Any = None

    def flatten(self) -> dict[str, Tensor | float]:
        """Flat log names: ``total``, ``<term>/raw``, ``/weight``, ``/weighted``, ``/<part>``, and the measures."""
        flat: dict[str, Tensor | float] = {"total": self.total}
        for name, term in self.terms.items():
            values = {"raw": term.raw, "weight": term.weight, "weighted": term.weighted, **term.parts}
            flat.update({f"{name}/{key}": value for key, value in values.items() if value is not None})
        return {**flat, **self.measures}

    @property
    def statuses(self) -> dict[str, Status]:
        """Term name -> status."""
        return {name: term.status for name, term in self.terms.items()}


def merged(first: TermReport, second: TermReport) -> TermReport:
    """Two terms of one name reported as one: values add up, the weight is common or weighted / raw."""
    raw, weighted = _sum(first.raw, second.raw), _sum(first.weighted, second.weighted)
    weight = first.weight
    if not _same(first.weight, second.weight):
        weight = weighted / raw if raw is not None and weighted is not None else None
    ran = [report for report in (first, second) if report.state == "active"]
    skips = [report.skipped for report in (first, second) if report.skipped is not None]
    return TermReport(
        raw=raw,
        weight=weight,
        weighted=weighted,
        state="active" if ran else first.state,
        skipped=torch.stack(skips).all() if len(skips) == 2 else None,
        parts={**first.parts, **second.parts},
        inputs=first.inputs if second.inputs is None else second.inputs,
    )


def _sum(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


def _same(first: float | Tensor | None, second: float | Tensor | None) -> bool:
    return first is second or (isinstance(first, float) and isinstance(second, float) and first == second)
