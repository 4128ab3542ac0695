"""One update of one phase: forward, backward, clip, step, update. Knows a phase only by its contract."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from smalti.engine.diagnosis.safely import Safely
from smalti.engine.diagnosis.signals import image_signals, latent_signals, planes_of, reach, token_signals, update_ratio
from smalti.engine.diagnostics import clipped_shares
from smalti.engine.graphs import CudaRecorder, Replayer, kind_of, why_not
from smalti.engine.health import Guard, Suspects
from smalti.engine.optimizers import build_optimizer, learning_rate
from smalti.engine.randomness import keyed_noise, reseed
from smalti.engine.runtime import Runtime
from smalti.engine.settings import GENERATOR, EngineSettings, PhaseOptimizer
from smalti.objectives.phases import Phase
from smalti.objectives.report import LossReport
from smalti.objectives.weight import Clock
from smalti.outputs import TokensOutput
from smalti.registry import UserError

FAKE = "fake of the generator"  # beside the columns of a batch


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one update was.

    Args:
        phase: who moved.
        reports: one per micro-batch.
        gradient_norm: total norm before clipping, a scalar on the device.
        bad: 1 if a loss or gradient was not finite and nothing was changed, else 0; a scalar on the device.
        learning_rate: of this update.
        suspects: which terms and which gradients were finite.
        clipped: shares of weights at the bound of ``weight_clip``, if they were measured.
        signals: log name -> what a diagnosis looks at, if it was measured.
    """

    phase: str
    reports: Sequence[LossReport]
    gradient_norm: Tensor
    bad: Tensor
    learning_rate: float
    suspects: Suspects
    clipped: Mapping[str, Tensor] = field(default_factory=dict)
    signals: Mapping[str, Tensor | float] = field(default_factory=dict)


def own_key(phase: str, clock: Clock) -> str:
    """The key of the noise that an update of ``phase`` draws for itself."""
    return f"{phase}.{clock.updates}"


@dataclass(frozen=True, kw_only=True)
class Passes:
    """What forward and backward passes of an update found.

    Args:
        reports: one per micro-batch.
        gradients: name -> gradient, clipped.
        norm: total norm before clipping, a scalar.
        bad: 1 if a loss or gradient was not finite, else 0; a scalar.
        suspects: which terms and which gradients were finite.
    """

    reports: Sequence[LossReport]
    gradients: Mapping[str, Tensor]
    norm: Tensor
    bad: Tensor
    suspects: Suspects

    def kept(self) -> "Passes":
        """The same, with copies of what is read at a later step."""
        suspects = replace(self.suspects, values=self.suspects.values.clone(), norms=self.suspects.norms.clone())
        return replace(self, norm=self.norm.clone(), bad=self.bad.clone(), suspects=suspects)


class Player:
    """A phase with what trains it: its optimizer, its wrapping for several ranks, its guard against bad steps.

    Args:
        name: the phase's name in the cycle.
        phase: the phase, on its device.
        model: the network whose noise is drawn here.
        spec: how it steps.
        settings: of the run.
        runtime: device, ranks, precision.
    """

    def __init__(
        self,
        name: str,
        phase: Phase,
        model: nn.Module,
        spec: PhaseOptimizer,
        settings: EngineSettings,
        runtime: Runtime,
    ) -> None:
        self.name, self.phase, self.model = name, phase, model
        self.spec, self.settings, self.runtime = spec, settings, runtime
        self.optimizer = build_optimizer(phase, spec)
        self.wrapped = runtime.wrap(phase)
        self._watched = False
        self.safely, self._planes = Safely(), planes_of(model)
        self.parameters = {key: p for key, p in phase.named_parameters() if p.requires_grad}
        reason = why_not(phase, settings, spec, runtime.device, runtime.world_size)
        self.replayer: Replayer[Passes] = Replayer(CudaRecorder(), self._addresses, reason, name)

    def play(
        self,
        batches: Sequence[Mapping[str, Any]],
        clock: Clock,
        fakes: Sequence[Tensor | None],
        *,
        guard: Guard,
        measure: bool,
        weight_clip: float | None = None,
        noise_key: str | None = None,
    ) -> Turn:
        """One update from ``batches``, the micro-batches of this rank.

        Args:
            batches: as the loader gives them.
            clock: generator updates, and this phase's own.
            fakes: the judged images of the same micro-batches, if there are any to reuse.
            guard: keeps the buffers of all networks, in case the step is skipped.
            measure: also measure what is costly.
            weight_clip: bound of the weights.
            noise_key: whose noise to draw; by default this update's own.
        """
        guard.take()
        first = self.prepare(batches[0], clock, noise_key)
        with self.runtime.postponing():
            found = self._run(first, batches, clock, fakes, measure, noise_key)
        rate = self._step(found.bad, clock)
        if weight_clip is not None:
            self._clamp(weight_clip)
        clipped = clipped_shares(self.parameters, weight_clip) if weight_clip is not None and measure else {}
        signals = self._signals(batches, found.reports, clock) if measure else {}
        self._settle(guard, found.bad, found.reports, clock)
        return Turn(
            phase=self.name,
            reports=found.reports,
            gradient_norm=found.norm,
            bad=found.bad,
            learning_rate=rate,
            suspects=found.suspects,
            clipped=clipped,
            signals=signals,
        )

    def _signals(
        self, batches: Sequence[Mapping[str, Any]], reports: Sequence[LossReport], clock: Clock
    ) -> dict[str, Tensor | float]:
        """What a diagnosis looks at, left on the device."""
        updates, output = clock.updates + 1, reports[-1].output
        found = self.safely("update", lambda: update_ratio(self.name, self.optimizer, updates))
        if self.name == GENERATOR:
            passes = len(batches) * self.runtime.world_size
            found |= self.safely("images", lambda: image_signals(batches[-1].get("image")))
            found |= self.safely("latents", lambda: latent_signals(output))
            if isinstance(output, TokensOutput):
                books = getattr(self.model, "codebooks", {})
                found |= self.safely("tokens", lambda: token_signals(batches[-1].get("indices"), books))
            found |= self.safely("reach", lambda: reach(self._planes, output, updates, passes))
        return found

    def _run(
        self,
        first: dict[str, Any],
        batches: Sequence[Mapping[str, Any]],
        clock: Clock,
        fakes: Sequence[Tensor | None],
        measure: bool,
        noise_key: str | None,
    ) -> Passes:
        """The passes over all micro-batches, of which the first is on the device; replayed if they are recorded."""

        def begin() -> None:
            self.optimizer.zero_grad(set_to_none=True)
            self._reseed(clock, 0)

        def work(inputs: dict[str, Any]) -> Passes:
            fake = inputs.pop(FAKE, None)
            rest = ((self.prepare(batch, clock, noise_key), fakes[n]) for n, batch in enumerate(batches) if n)
            return self._passes([(inputs, fake)], rest, len(batches), clock, measure)

        given = dict(first) if fakes[0] is None else first | {FAKE: fakes[0]}
        kind = None if measure else kind_of(self.phase, clock, given)
        found, replayed = self.replayer.run(kind, given, begin, lambda inputs: work(dict(inputs)))
        if not replayed:
            return found
        for key, parameter in self.parameters.items():
            parameter.grad = found.gradients.get(key)
        return found.kept()

    def _passes(
        self,
        first: Iterable[tuple[dict[str, Any], Tensor | None]],
        rest: Iterable[tuple[dict[str, Any], Tensor | None]],
        count: int,
        clock: Clock,
        measure: bool,
    ) -> Passes:
        reports: list[LossReport] = []
        for number, (ready, fake) in enumerate(chain(first, rest)):
            if number:
                self._reseed(clock, number)
            with self.runtime.no_sync(self.wrapped) if number < count - 1 else nullcontext():
                reports.append(self._pass(ready, clock, fake, measure, count))
        gradients = {key: p.grad for key, p in self.parameters.items() if p.grad is not None}
        if not gradients:
            raise UserError(f"{self.name}: no term of this phase reaches a parameter that can be trained")
        suspects = Suspects.of(reports, gradients)
        norm = torch.linalg.vector_norm(suspects.norms)
        bad = self.runtime.any_tensor(1.0 - suspects.all_finite().to(norm.dtype))
        if self.spec.clip is not None:
            share = torch.clamp(self.spec.clip / (norm + 1e-6), max=1.0)
            values = list(gradients.values())
            torch._foreach_mul_(values, share.to(values[0].dtype))
        return Passes(reports=reports, gradients=gradients, norm=norm, bad=bad, suspects=suspects)

    def _reseed(self, clock: Clock, number: int) -> None:
        reseed(self.settings.seed, clock.step, self.name, clock.updates, number, self.runtime.rank)

    def _addresses(self) -> tuple[int, ...]:
        """Where parameters and buffers lie, of the phase and of the networks that it refers to."""
        modules = (self.phase, *self.phase.others)
        return tuple(t.data_ptr() for part in modules for t in chain(part.parameters(), part.buffers()))

    def prepare(self, batch: Mapping[str, Any], clock: Clock, noise_key: str | None = None) -> dict[str, Any]:
        """The batch on the device, with a column of noise, keyed by sample, if the model draws any."""
        ready = self.runtime.to_device(batch)
        noise_shape = getattr(self.model, "noise_shape", None)  # a model from elsewhere need not have it
        draws = callable(noise_shape) and "image" in ready
        shape = noise_shape(tuple(ready["image"].shape[1:])) if draws and callable(noise_shape) else None
        if shape is not None and "noise" not in ready:
            key = noise_key or own_key(self.name, clock)
            noise = keyed_noise(self.settings.seed, clock.step, key, batch["position"].tolist(), shape)
            ready |= self.runtime.to_device({"noise": noise})
        return ready

    def _pass(
        self, batch: dict[str, Any], clock: Clock, fake: Tensor | None, measure: bool, micro_batches: int
    ) -> LossReport:
        with self.runtime.autocast():
            surrogate, report = self.wrapped(batch, clock, fake=fake, measure=measure)
        (surrogate / micro_batches).backward()
        kept: LossReport = report
        return kept

    def _step(self, bad: Tensor, clock: Clock) -> float:
        rate = learning_rate(self.spec, clock.step, self.settings.max_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Fused Adam reads this tensor on the device: 1 leaves weights, moments and its step count as they are.
        self.optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
        self.optimizer.step()
        return rate

    @torch.no_grad()
    def _clamp(self, bound: float) -> None:
        parameters: list[Tensor] = list(self.parameters.values())
        torch._foreach_clamp_min_(parameters, -bound)
        torch._foreach_clamp_max_(parameters, bound)

    def _settle(self, guard: Guard, bad: Tensor, reports: Sequence[LossReport], clock: Clock) -> None:
        """Lets the phase change its state, unless the step was bad; without asking a GPU which it was."""
        # One key for all ranks: codes that are revived must be the same everywhere.
        reseed(self.settings.seed, clock.step, self.name, clock.updates, "update")
        # Which parameters an update writes is learned from the first good one: until then it is asked.
        read = self.runtime.reads_are_free or not self._watched
        if read and bad.item():
            guard.restore()
            return
        with nullcontext() if self.runtime.reads_are_free else guard.watching():
            self.phase.update(reports)
        self._watched = True
        if not read:
            guard.restore_where(bad)
