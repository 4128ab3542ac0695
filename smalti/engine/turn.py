"""One update of one phase: forward, backward, clip, step, update. Knows a phase only by its contract."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from smalti.engine.diagnostics import clipped_shares
from smalti.engine.health import Guard, Suspects
from smalti.engine.optimizers import build_optimizer, learning_rate
from smalti.engine.randomness import keyed_noise, reseed
from smalti.engine.runtime import Runtime
from smalti.engine.settings import EngineSettings, PhaseOptimizer
from smalti.objectives.phases import Phase
from smalti.objectives.report import LossReport
from smalti.objectives.weight import Clock
from smalti.registry import UserError


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
    """

    phase: str
    reports: Sequence[LossReport]
    gradient_norm: Tensor
    bad: Tensor
    learning_rate: float
    suspects: Suspects
    clipped: Mapping[str, Tensor] = field(default_factory=dict)


def own_key(phase: str, clock: Clock) -> str:
    """The key of the noise that an update of ``phase`` draws for itself."""
    return f"{phase}.{clock.updates}"


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
        self.parameters = {key: p for key, p in phase.named_parameters() if p.requires_grad}

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
        self.optimizer.zero_grad(set_to_none=True)
        reports = self._accumulate(batches, clock, fakes, measure, noise_key)
        gradients = {key: p.grad for key, p in self.parameters.items() if p.grad is not None}
        if not gradients:
            raise UserError(f"{self.name}: no term of this phase reaches a parameter that can be trained")
        suspects = Suspects.of(reports, gradients)
        norm = torch.linalg.vector_norm(suspects.norms)
        bad = self.runtime.any_tensor(1.0 - suspects.all_finite().to(norm.dtype))
        rate = self._step(list(gradients.values()), norm, bad, clock)
        if weight_clip is not None:
            self._clamp(weight_clip)
        clipped = clipped_shares(self.parameters, weight_clip) if weight_clip is not None and measure else {}
        self._settle(guard, bad, reports, clock)
        return Turn(
            phase=self.name,
            reports=reports,
            gradient_norm=norm,
            bad=bad,
            learning_rate=rate,
            suspects=suspects,
            clipped=clipped,
        )

    def _accumulate(
        self,
        batches: Sequence[Mapping[str, Any]],
        clock: Clock,
        fakes: Sequence[Tensor | None],
        measure: bool,
        noise_key: str | None,
    ) -> list[LossReport]:
        reports = []
        for number, batch in enumerate(batches):
            ready = self.prepare(batch, clock, noise_key)
            reseed(self.settings.seed, clock.step, self.name, clock.updates, number, self.runtime.rank)
            if number < len(batches) - 1:
                with self.runtime.no_sync(self.wrapped):
                    reports.append(self._pass(ready, clock, fakes[number], measure, len(batches)))
            else:
                reports.append(self._pass(ready, clock, fakes[number], measure, len(batches)))
        return reports

    def prepare(self, batch: Mapping[str, Any], clock: Clock, noise_key: str | None = None) -> dict[str, Any]:
        """The batch on the device, with a column of noise, keyed by sample, if the model draws any."""
        ready = self.runtime.to_device(batch)
        noise_shape = getattr(self.model, "noise_shape", None)  # a model from elsewhere need not have it
        shape = noise_shape(tuple(ready["image"].shape[1:])) if callable(noise_shape) else None
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

    def _step(self, gradients: list[Tensor], norm: Tensor, bad: Tensor, clock: Clock) -> float:
        if self.spec.clip is not None:
            share = torch.clamp(self.spec.clip / (norm + 1e-6), max=1.0)
            torch._foreach_mul_(gradients, share.to(gradients[0].dtype))
        rate = learning_rate(self.spec, clock.step, self.settings.max_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Fused Adam reads this tensor on the device: 1 leaves weights, moments and its step count as they are.
        self.optimizer.found_inf = bad.to(torch.float32)  # type: ignore[attr-defined]
        self.optimizer.step()
        return rate

    @torch.no_grad()
    def _clamp(self, bound: float) -> None:
        for parameter in self.parameters.values():
            parameter.clamp_(-bound, bound)

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
