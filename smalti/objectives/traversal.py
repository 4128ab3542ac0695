"""One traversal of the model: image-space terms are differentiated at the detached judged images r, and combined there.

What goes back through the model is g = sum_i w_i dL_i/dr, once, however many terms and networks there are. The adaptive
weight needs two vector products through the last layer and nothing else. Gradients equal the textbook form
(backward of sum_i w_i L_i with lambda from two ``autograd.grad``) up to rounding.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from smalti.nn.memory_format import format_of, like
from smalti.objectives.balance import Adaptive, balance, last_layer_gradient, norm
from smalti.objectives.context import Context
from smalti.objectives.names import is_adversarial
from smalti.objectives.report import LossReport, TermReport, merged
from smalti.objectives.term import Term
from smalti.objectives.values import detached
from smalti.objectives.weight import Clock
from smalti.outputs import LossValue


@runtime_checkable
class Updatable(Protocol):
    """Has persistent state that changes after a successful step only."""

    def update(self, records: Sequence[Any], /) -> None:
        """Takes the detached records of all micro-batches of the step."""


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A term with its value in this pass.

    Args:
        term: the term.
        value: its loss, total a scalar.
        weight: effective weight, the adaptive factor included once it is known.
        unweighted: the loss without sample weights, a scalar; ``value.total`` itself if there are none.
        inputs: what the loss was given.
        skipped: 0-dim bool tensor: its adaptive factor was not finite.
        computed: False if its adaptive factor is not computed (evaluation).
    """

    term: Term
    value: LossValue
    weight: float | Tensor
    unweighted: Tensor
    inputs: Mapping[str, object] = field(default_factory=dict)
    skipped: Tensor | None = None
    computed: bool = True

    @property
    def is_logged_only(self) -> bool:
        """Whether it is reported and never optimised."""
        return self.term.role == "log"

    @property
    def weighted(self) -> Tensor | None:
        """What it adds to the total, a scalar; None if nothing."""
        if self.is_logged_only or not self.computed:
            return None
        product = self.weight * self.value.total
        return product if self.skipped is None else torch.where(self.skipped, torch.zeros_like(product), product)

    def report(self) -> TermReport:
        """The detached report."""
        skipped, computed = self.skipped, self.computed and not self.is_logged_only
        return TermReport(
            raw=self.value.total.detach(),
            weight=detached(self.weight) if computed else None,
            weighted=detached(self.weighted),
            state="active" if self.computed else "not computed",
            skipped=skipped,
            parts=detached(self.value.parts),
            inputs=detached({**self.inputs, **self.value.parts}) if isinstance(self.term.loss, Updatable) else None,
        )


def evaluate(terms: Iterable[Term], context: Context, clock: Clock) -> list[Evaluated]:
    """Evaluates the terms that are due; logged ones last and without autograd, so that they leave no mark."""
    due = sorted((term for term in terms if term.is_due(clock)), key=lambda term: term.role == "log")
    return [_evaluate(term, context, clock) for term in due]


def _evaluate(term: Term, context: Context, clock: Clock) -> Evaluated:
    with torch.set_grad_enabled(torch.is_grad_enabled() and term.role != "log"):
        inputs = {name: context[source] for name, source in term.bindings.items()}
        value = term.evaluate(inputs)
        return Evaluated(term, value, term.at(clock), term.unweighted(value, inputs), inputs)


def report(
    terms: Sequence[Term],
    evaluated: Sequence[Evaluated],
    clock: Clock,
    measures: Mapping[str, Tensor],
    zero: Tensor,
    fake: Tensor | None = None,
    output: object = None,
) -> LossReport:
    """The report of a pass, in the order of ``terms``; ``zero`` is the scalar that an empty total equals."""
    done = {id(one.term): one for one in evaluated}
    reports: dict[str, TermReport] = {}
    for term in terms:
        if id(term) in done:
            one = done[id(term)].report()
        else:
            one = TermReport(state="waiting" if term.is_waiting(clock) else "skipped")
        reports[term.name] = merged(reports[term.name], one) if term.name in reports else one
    total = sum((one.weighted for one in reports.values() if one.weighted is not None), zero.detach())
    return LossReport(terms=reports, total=total, measures=detached(measures), fake=fake, output=output)


@dataclass(frozen=True)
class Gradient:
    """A gradient at the judged images (B, C, H, W) and at the learned parameters of the terms."""

    image: Tensor
    parameters: tuple[Tensor | None, ...]

    def __add__(self, other: "Gradient") -> "Gradient":
        """Sum of two gradients."""
        pairs = zip(self.parameters, other.parameters, strict=True)
        return Gradient(self.image + other.image, tuple(_add(a, b) for a, b in pairs))

    def scaled(self, weight: float | Tensor, skipped: Tensor) -> "Gradient":
        """weight x gradient, zero (not nan) where ``skipped``."""

        def scale(gradient: Tensor) -> Tensor:
            return torch.where(skipped, torch.zeros_like(gradient), weight * gradient)

        return Gradient(scale(self.image), tuple(None if g is None else scale(g) for g in self.parameters))


def _add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first + second


class Traversal:
    """Combines the gradients of image-space terms at the leaf ``image`` and finds the adaptive weights.

    Args:
        judged: the model's output with its graph, with shape (B, C, H, W).
        image: the leaf that the terms saw in its place.
        last_layer: the weight that made ``judged``.
        parameters: learned parameters of the terms.
    """

    def __init__(self, judged: Tensor, image: Tensor, last_layer: Tensor, parameters: Sequence[nn.Parameter]) -> None:
        self.judged = judged
        self.image = image
        self.last_layer = last_layer
        self.parameters = tuple(parameters)

    def gradient(self, losses: Sequence[Tensor]) -> Gradient:
        """Gradient of the sum of scalars; zero if there are none."""
        total = sum(losses) if losses else None
        if not isinstance(total, Tensor) or not total.requires_grad:
            return Gradient(torch.zeros_like(self.image), (None,) * len(self.parameters))
        wanted = (self.image, *self.parameters)
        image, *parameters = torch.autograd.grad(total, wanted, retain_graph=True, allow_unused=True)
        found = torch.zeros_like(self.image) if image is None else image
        if format_of(self.image) is torch.channels_last:  # a mean's gradient is contiguous, whatever it is of
            found = like(found, self.image)
        return Gradient(found, tuple(parameters))

    def surrogate(self, gradient: Gradient) -> Tensor:
        """The scalar whose gradient at the model and at the terms' parameters is ``gradient``."""
        total = (self.judged.to(gradient.image.dtype) * gradient.image).sum()
        for parameter, slope in zip(self.parameters, gradient.parameters, strict=True):
            total = total if slope is None else total + (parameter * slope).sum()
        return total

    def image_surrogate(self, losses: Sequence[Tensor]) -> Tensor:
        """As ``surrogate``, for losses that also reach the model by other ways: their way through the image only."""
        total = sum(losses) if losses else None
        slope = None
        if isinstance(total, Tensor) and total.requires_grad:
            (slope,) = torch.autograd.grad(total, self.image, retain_graph=True, allow_unused=True)
        return self.image.new_zeros(()) if slope is None else (self.judged.to(slope.dtype) * slope).sum()

    def combine(
        self, evaluated: Sequence[Evaluated], measure: bool
    ) -> tuple[Gradient, list[Evaluated], dict[str, Tensor]]:
        """The combined gradient, the terms with their adaptive factors, and what was measured on the way.

        ``evaluated`` are optimised image-space terms. Each group of terms that some adaptive weight needs apart from
        the others costs one backward pass to the image; without such a need there is one group.
        """
        adaptive = [one for one in evaluated if one.term.adaptive]
        plain = [one for one in evaluated if not one.term.adaptive]
        groups: dict[tuple[bool, ...], list[Evaluated]] = {}
        for one in plain:
            key = (*(_is_reference(one, to) for to in adaptive), measure and is_adversarial(one.term.reads))
            groups.setdefault(key, []).append(one)
        gradients = {key: self._weighted(group) for key, group in groups.items()}
        nothing = self.gradient([])
        pull = sum_of((g for key, g in gradients.items() if key[-1]), nothing)
        rest = sum_of((g for key, g in gradients.items() if not key[-1]), nothing)
        finished = {id(one): one for one in evaluated}
        measures: dict[str, Tensor] = {}
        for i, one in enumerate(adaptive):
            reference = sum_of((g for key, g in gradients.items() if key[i]), self._sample_weighted(one, plain))
            own, finished[id(one)], notes = self._balance(one, reference)
            pull = pull + own
            measures.update(notes)
        if measure:
            measures.update(self._norms(pull, rest))
        return rest + pull, list(finished.values()), measures

    def _weighted(self, group: Iterable[Evaluated]) -> Gradient:
        return self.gradient([one.weight * one.value.total for one in group])

    def _sample_weighted(self, one: Evaluated, plain: Sequence[Evaluated]) -> Gradient:
        """References of ``one`` with sample weights, which its factor leaves out."""
        named = [other for other in plain if other.term.name in _options(one).reference]
        return self.gradient([o.weight * o.unweighted for o in named if o.unweighted is not o.value.total])

    def _balance(self, one: Evaluated, reference: Gradient) -> tuple[Gradient, Evaluated, dict[str, Tensor]]:
        own = self.gradient([one.value.total])
        factor, clamped, skipped = balance(self._at_last_layer(reference), self._at_last_layer(own), _options(one))
        weight = one.weight * factor
        name = one.term.name
        notes = {f"{name}/adaptive": factor, f"{name}/clamped": clamped, f"{name}/skipped": skipped.to(factor.dtype)}
        return own.scaled(weight, skipped), replace(one, weight=weight, skipped=skipped), notes

    def _at_last_layer(self, gradient: Gradient) -> Tensor:
        return last_layer_gradient(self.judged, gradient.image, self.last_layer)

    def _norms(self, adversarial: Gradient, rest: Gradient) -> dict[str, Tensor]:
        if not (self.last_layer.requires_grad and self.judged.requires_grad):
            return {}
        pull, hold = norm(self._at_last_layer(adversarial)), norm(self._at_last_layer(rest))
        share = torch.where(pull + hold > 0, pull / (pull + hold), torch.zeros_like(pull))
        return {
            "gradient_norm/adversarial": pull,
            "gradient_norm/reconstruction": hold,
            "gradient_norm/adversarial_share": share,
        }


def sum_of(gradients: Iterable[Gradient], start: Gradient) -> Gradient:
    """Adds gradients of equal shapes to ``start``."""
    for gradient in gradients:
        start = start + gradient
    return start


def _options(one: Evaluated) -> Adaptive:
    if one.term.adaptive is None:
        raise ValueError(f"term {one.term.name!r} has no adaptive weight")
    return one.term.adaptive


def _is_reference(one: Evaluated, to: Evaluated) -> bool:
    """Whether ``one``, as it is weighted, counts in the reference of the adaptive term ``to``."""
    return one.term.name in _options(to).reference and one.unweighted is one.value.total
