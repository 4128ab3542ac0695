"""Phases: one per player; each says which terms train its network, and gives one surrogate to send backward.

A phase is an ``nn.Module`` that registers its own network and the state of its terms; the other network and frozen
networks are only referenced, so that no optimizer, DDP wrapper or state dict of this phase holds them. The engine calls

    surrogate, report = phase(batch, clock)      # the number to log is report.total, not the surrogate
    (surrogate / micro_batches).backward()
    ...                                          # optimizer step
    phase.update(reports)                        # once, after a successful step
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache, partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from smalti.objectives.balance import check_last_layer
from smalti.objectives.context import (
    Context,
    Judge,
    Precision,
    augment_measures,
    draws_images,
    equal_draws,
    frozen,
    in_mode,
    sampler,
    shared_thunks,
    target_of,
    zero_of,
)
from smalti.objectives.critic import buffers_kept, critic_measures
from smalti.objectives.graph import adaptive_problems
from smalti.objectives.names import FAKE_JUDGEMENT, NEEDS_DISCRIMINATOR, PREDICTION, is_image, is_image_space
from smalti.objectives.report import LossReport
from smalti.objectives.term import Term
from smalti.objectives.traversal import Evaluated, Traversal, Updatable, evaluate, report
from smalti.objectives.values import detached, full_precision
from smalti.objectives.weight import Clock
from smalti.outputs import Batch, DiscriminatorOutput, TrainableModel
from smalti.registry import Phase as Player
from smalti.registry import UserError

JUDGEMENTS = ("logits_real", "features_real", "logits_fake", "features_fake")  # real first: batch statistics see it so


class Phase(nn.Module):
    """Base of the phases.

    Args:
        network: what this phase trains; registered under ``network``.
        terms: the terms of this player.
        condition: batch column (B, C, H, W) that the discriminator is given beside images, or None.
    """

    name: ClassVar[Player]

    def __init__(self, network: nn.Module, terms: Sequence[Term], condition: str | None) -> None:
        super().__init__()
        self.network = network
        self.terms = tuple(terms)
        self.condition = condition
        self.losses = nn.ModuleDict()  # owns parameters and state of the terms
        for term in self.terms:
            self._own(term)

    def _own(self, term: Term) -> None:
        if isinstance(term.loss, type):
            raise ValueError(f"term {term.name!r}: expected a loss, got the class {term.loss.__name__}")
        twins = [other for other in self.terms if other.name == term.name]
        if len(twins) > 1 and not all(twin.merge for twin in twins[1:]):
            raise ValueError(f"two terms are called {term.name!r}: rename one, or add them up with merge='sum'")
        if isinstance(term.loss, nn.Module):
            first = twins[0] is term
            key = term.name if first else f"{term.name}_{[t is term for t in twins].index(True) + 1}"
            try:
                self.losses.add_module(key, term.loss)
            except KeyError as error:
                raise ValueError(f"term name {term.name!r} is taken by torch: rename the term") from error

    def is_active(self, clock: Clock) -> bool:
        """Whether an optimised term has started; a phase without one is skipped at no cost.

        Lazy terms count also between their turns, since their turns are counted in updates of this phase.
        """
        return any(term.role == "optimize" and not term.is_waiting(clock) for term in self.terms)

    def due(self, clock: Clock) -> list[Term]:
        """The terms that are evaluated at this update."""
        return [term for term in self.terms if term.is_due(clock)]

    @property
    @abstractmethod
    def others(self) -> tuple[nn.Module, ...]:
        """The networks that it refers to and does not train."""

    @abstractmethod
    def forward(
        self, batch: Batch, clock: Clock, fake: Tensor | None = None, measure: bool = False
    ) -> tuple[Tensor, LossReport]:
        """Evaluates the terms on ``batch``; returns the scalar to send backward, and the report."""

    def update(self, reports: Sequence[LossReport]) -> None:
        """Lets the losses that keep state see their detached inputs, one record for each micro-batch."""
        for term in self.terms:
            loss: object = term.loss
            if isinstance(loss, Updatable):
                records = [report.terms[term.name].inputs for report in reports]
                loss.update([record for record in records if record is not None])

    def _connected(self, surrogate: Tensor) -> Tensor:
        """The surrogate; where nothing was optimised, a zero that hangs on the network so that backward is legal."""
        if surrogate.requires_grad or not torch.is_grad_enabled():
            return surrogate
        return surrogate + sum(0.0 * p.flatten()[0] for p in self.parameters() if p.requires_grad)


class GeneratorPhase(Phase):
    """Trains the model: autoencoder or image generator.

    Args:
        model: satisfies ``TrainableModel``.
        terms: the generator's terms.
        discriminator: who judges; frozen within the phase, in training mode exactly if the phase is.
        teachers: name -> frozen network that looks at the target, without autograd.
        condition: batch column (B, C, H, W) that the discriminator is given beside images, or None.
    """

    name = "generator"

    def __init__(
        self,
        model: nn.Module,
        terms: Sequence[Term],
        *,
        discriminator: nn.Module | None = None,
        teachers: Mapping[str, nn.Module] | None = None,
        condition: str | None = None,
    ) -> None:
        super().__init__(model, terms, condition)
        self._others: tuple[nn.Module | None, dict[str, nn.Module]] = (discriminator, dict(teachers or {}))
        for teacher in self._others[1].values():
            teacher.eval().requires_grad_(False)
        if discriminator is None:
            asking = [term.name for term in self.terms if not NEEDS_DISCRIMINATOR.isdisjoint(term.reads)]
            if asking:
                raise ValueError(f"term {asking[0]!r} needs a discriminator, and this phase has none")
        problems = adaptive_problems(self.terms, self.model.judged)
        if problems:
            term, message = problems[0]
            raise ValueError(f"term {term.name!r}: {message}")
        if any(term.adaptive for term in self.terms):
            check_last_layer(self.model.last_layer)

    @property
    def model(self) -> TrainableModel:
        """The trained model."""
        model: TrainableModel = self.network  # type: ignore[assignment]
        return model

    @property
    def teachers(self) -> tuple[nn.Module, ...]:
        """The frozen networks that look at the target."""
        return tuple(self._others[1].values())

    @property
    def others(self) -> tuple[nn.Module, ...]:
        """The discriminator, if there is one, and the teachers."""
        discriminator = self._others[0]
        return (*self.teachers, *(() if discriminator is None else (discriminator,)))

    @property
    def named_teachers(self) -> Mapping[str, nn.Module]:
        """Name -> frozen network that looks at the target."""
        return dict(self._others[1])

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> "GeneratorPhase":
        """Teachers move along, though they are in no state dict."""
        for teacher in self._others[1].values():
            teacher._apply(function)  # type: ignore[no-untyped-call]
        super()._apply(function, recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(
        self, batch: Batch, clock: Clock, fake: Tensor | None = None, measure: bool = False
    ) -> tuple[Tensor, LossReport]:
        """One pass over ``batch`` (``image``: (B, C, H, W) in [-1, 1], or whatever else the model reads).

        Args:
            batch: column -> values.
            clock: when it is.
            fake: not used by this phase.
            measure: whether to spend two vector products on gradient norms at the last layer.

        Returns:
            The surrogate, a scalar whose gradients are those of the weighted sum of terms, and the report, whose
            ``total`` is that sum. Without autograd both are the sum and adaptive terms are "not computed".
        """
        discriminator = self._others[0]
        zero = zero_of(self.network, batch)
        precision = Precision.ambient(zero.device)
        output = self.model.training_forward(batch)
        judged = getattr(output, self.model.judged) if self.model.judged else None
        with ExitStack() as stack:
            stack.enter_context(precision.terms())
            if not NEEDS_DISCRIMINATOR.isdisjoint(name for term in self.due(clock) for name in term.reads):
                stack.enter_context(frozen(discriminator))
                stack.enter_context(in_mode(discriminator, self.training))
                stack.enter_context(equal_draws(discriminator))
            image = None if judged is None else full_precision(judged.detach())
            if image is not None and torch.is_grad_enabled():
                image.requires_grad_(True)
            context = self._context(batch, clock, output, image, precision)
            evaluated = evaluate(self.terms, context, clock)
            surrogate, evaluated, measures = self._combine(evaluated, judged, image, zero, measure)
            if context.computed("logits_fake"):
                measures["logits_fake"] = context["logits_fake"].mean()
        fakes = None if judged is None else judged.detach()
        result = report(self.terms, evaluated, clock, measures, zero, fakes, detached(output))
        return (self._connected(surrogate) if torch.is_grad_enabled() else result.total), result

    def _context(self, batch: Batch, clock: Clock, output: Any, image: Tensor | None, precision: Precision) -> Context:
        discriminator, teachers = self._others

        def prediction() -> Tensor:
            if image is None:
                raise UserError("this model has no image for a discriminator: 'prediction' is not available")
            return image

        target = partial(target_of, batch)
        thunks = shared_thunks(batch, clock.step, target, teachers, precision)
        if image is not None:
            thunks |= {name: prediction for name in ("prediction", "fake", str(self.model.judged))}
        if discriminator is not None:
            thunks |= Judge(discriminator, batch, self.condition, precision).thunks(target, prediction)
        model = self.model
        if draws_images(model):
            thunks["generator"] = partial(sampler, model, batch)
        return Context(thunks, output)

    def _combine(
        self, evaluated: list[Evaluated], judged: Tensor | None, image: Tensor | None, zero: Tensor, measure: bool
    ) -> tuple[Tensor, list[Evaluated], dict[str, Tensor]]:
        """Surrogate, the terms with their adaptive factors, and measures."""
        surrogate = zero
        if not torch.is_grad_enabled():
            return surrogate, [_without_factor(one) for one in evaluated], {}
        optimised = [one for one in evaluated if one.term.role == "optimize"]
        in_image_space = [one for one in optimised if is_image_space(one.term.reads, self.model.judged)]
        others = [one for one in optimised if not is_image_space(one.term.reads, self.model.judged)]
        measures: dict[str, Tensor] = {}
        finished: dict[int, Evaluated] = {id(one.term): one for one in evaluated}
        if judged is not None and image is not None:
            if any(one.term.adaptive for one in in_image_space):
                check_last_layer(self.model.last_layer)
            parameters = {id(p): p for one in in_image_space for p in one.term.parameters}
            traversal = Traversal(judged, image, self.model.last_layer, list(parameters.values()))
            gradient, changed, measures = traversal.combine(in_image_space, measure)
            finished |= {id(one.term): one for one in changed}
            surrogate = traversal.surrogate(gradient)
            # a term that also reads other outputs: its way through the image joins the image's gradient
            mixed = [one for one in others if any(is_image(name, self.model.judged) for name in one.term.reads)]
            surrogate = surrogate + traversal.image_surrogate([one.weight * one.value.total for one in mixed])
        for one in others:
            surrogate = surrogate + one.weight * one.value.total
        return surrogate, [finished[id(one.term)] for one in evaluated], measures

    def update(self, reports: Sequence[LossReport]) -> None:
        """The model's own state (EMA codebooks, usage counts) and that of the losses."""
        if isinstance(self.network, Updatable):
            self.network.update([report.output for report in reports])
        super().update(reports)


class DiscriminatorPhase(Phase):
    """Trains the discriminator, on real images and detached made ones.

    Args:
        discriminator: the network.
        terms: the discriminator's terms.
        model: who makes the images when the pass is given none; referenced, never trained here.
        condition: batch column (B, C, H, W) that the discriminator is given beside images, or None.
    """

    name = "discriminator"

    def __init__(
        self, discriminator: nn.Module, terms: Sequence[Term], *, model: nn.Module, condition: str | None = None
    ) -> None:
        super().__init__(discriminator, terms, condition)
        self._model = (model,)
        adaptive = [term.name for term in self.terms if term.adaptive]
        if adaptive:
            raise ValueError(f"term {adaptive[0]!r}: an adaptive weight belongs to the generator's phase")

    @property
    def model(self) -> TrainableModel:
        """Who makes the images."""
        model: TrainableModel = self._model[0]  # type: ignore[assignment]
        return model

    @property
    def others(self) -> tuple[nn.Module, ...]:
        """Who makes the images."""
        return (self._model[0],)

    def forward(
        self, batch: Batch, clock: Clock, fake: Tensor | None = None, measure: bool = False
    ) -> tuple[Tensor, LossReport]:
        """One pass over ``batch`` (``image``: (B, C, H, W) in [-1, 1]).

        Args:
            batch: column -> values.
            clock: when it is.
            fake: made images (B, C, H, W) to reuse; None runs the model without autograd, if a term asks for images.
            measure: whether to look at the critic's slope and accuracy, and at how varied the images are.

        Returns:
            The sum of the weighted terms, a scalar, and the report.
        """
        zero = zero_of(self.network, batch)
        precision = Precision.ambient(zero.device)
        context = self._context(batch, clock, fake, precision)
        wanted = {name for term in self.due(clock) for name in term.reads}
        with precision.terms(), equal_draws(self.network):
            for name in JUDGEMENTS:
                if name in wanted:
                    context[name]
            evaluated = evaluate(self.terms, context, clock)
            weighted = [one.weighted for one in evaluated]
            surrogate = sum((value for value in weighted if value is not None), zero)
            measures: dict[str, Tensor] = {}
            for name in ("logits_real", "logits_fake"):
                if name in wanted:
                    measures[name] = context[name].mean()
        made = None if wanted.isdisjoint(PREDICTION | FAKE_JUDGEMENT) else context["fake"]
        if measure and made is not None and torch.is_grad_enabled():
            judge = Judge(self.network, batch, self.condition, precision)
            with buffers_kept(self.network), precision.terms(), equal_draws(self.network):
                measures |= critic_measures(judge, context["real"], made)
        measures |= augment_measures(self.network)
        said = DiscriminatorOutput(logits=context["logits_real"].detach()) if "logits_real" in wanted else None
        result = report(self.terms, evaluated, clock, measures, surrogate.new_zeros(()), made, said)
        return self._connected(surrogate), result

    def update(self, reports: Sequence[LossReport]) -> None:
        """The discriminator's own state (adaptive augmentation), from its logits of real images, and the losses'."""
        if isinstance(self.network, Updatable):
            self.network.update([report.output for report in reports if report.output is not None])
        super().update(reports)

    def _context(self, batch: Batch, clock: Clock, fake: Tensor | None, precision: Precision) -> Context:
        @cache
        def made() -> Tensor:
            value: Tensor = full_precision((self._made(batch, precision) if fake is None else fake).detach())
            return value

        def sample(noise: Tensor) -> Tensor:
            with torch.no_grad(), precision.networks():
                return sampler(self.model, batch)(noise)  # type: ignore[arg-type]

        target = partial(target_of, batch)
        thunks = shared_thunks(batch, clock.step, target, {}, precision)
        thunks |= {"fake": made, "prediction": made}
        thunks |= Judge(self.network, batch, self.condition, precision).thunks(target, made)
        if draws_images(self.model):
            thunks["generator"] = lambda: sample
        return Context(thunks)

    def _made(self, batch: Batch, precision: Precision) -> Tensor:
        if self.model.judged is None:
            raise UserError("this model has no image for a discriminator: 'fake' is not available")
        with torch.no_grad(), precision.networks(), in_mode(self._model[0], self.training):
            images: Tensor = getattr(self.model.training_forward(batch), self.model.judged)
        return images


def _without_factor(one: Evaluated) -> Evaluated:
    return replace(one, computed=False) if one.term.adaptive else one
