"""The one training loop. It counts generator updates and knows no loss, no model and no discriminator by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from smalti.engine.checkpoint import CheckpointFolder
from smalti.engine.chronicle import Chronicle
from smalti.engine.diagnostics import standing_warnings
from smalti.engine.dry_run import DryRun, account
from smalti.engine.ema import EMA
from smalti.engine.health import Guard
from smalti.engine.keeper import Keeper
from smalti.engine.logging import Journal, check_tracker
from smalti.engine.run_folder import RunFolder, writing
from smalti.engine.runtime import Runtime
from smalti.engine.samples import write_samples
from smalti.engine.settings import GENERATOR, CycleEntry, EngineSettings, PhaseOptimizer, parse_cycle
from smalti.engine.signals import StopSignal
from smalti.engine.state import TrainState
from smalti.engine.turn import Player, Turn, own_key
from smalti.engine.validation import Examiner, Validation
from smalti.objectives.phases import Phase
from smalti.objectives.weight import Clock
from smalti.outputs import Batch
from smalti.registry import UserError, suggest


class Loader(Protocol):
    """The micro-batches of one rank."""

    def batches(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """Micro-batches ``start``, ``start + 1``, ... without end."""


class LoaderFactory(Protocol):
    """Makes the loader of one rank, once ranks are known."""

    def __call__(self, *, rank: int, world_size: int) -> Loader:
        """The loader of ``rank`` out of ``world_size``."""


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Args:
        folder: the run folder.
        step: generator updates completed.
        finished: False if a signal stopped it; it can be resumed.
        evaluation: what ``evaluation.json`` holds, empty if the run was stopped.
    """

    folder: Path
    step: int
    finished: bool
    evaluation: Mapping[str, Any]


class Trainer:
    """Trains the networks of some phases in turn.

    Args:
        phases: name -> phase; one is called "generator".
        model: the network that is validated, averaged and saved; the generator phase trains it.
        loader: ``loader(rank=, world_size=)`` gives the training data of a rank.
        optimizers: phase name -> how it steps.
        settings: of the run.
        out: the run folder.
        cycle: who moves when; see ``parse_cycle``.
        validation: held-out images, or None.
        recipe: the resolved recipe, for ``recipe.yaml`` and for comparison on resumption.
        quiet: show no progress.

    Raises:
        UserError: if the cycle, an optimizer or the tracker cannot be.
    """

    def __init__(
        self,
        *,
        phases: Mapping[str, Phase],
        model: nn.Module,
        loader: LoaderFactory,
        optimizers: Mapping[str, PhaseOptimizer | None],
        settings: EngineSettings,
        out: str | Path,
        cycle: Sequence[str | Mapping[str, Any] | CycleEntry] = (GENERATOR,),
        validation: Validation | None = None,
        recipe: Mapping[str, Any] | None = None,
        quiet: bool = False,
    ) -> None:
        self.settings, self.recipe = settings, recipe
        self.cycle = parse_cycle(cycle, list(phases))
        specs = {entry.phase: optimizers.get(entry.phase) for entry in self.cycle}
        missing = [name for name, spec in specs.items() if spec is None]
        if missing:
            raise UserError(f"optim.{missing[0]}: the phase {missing[0]!r} has no optimizer")
        check_tracker(settings.tracker)
        self.runtime = Runtime(settings)
        self.phases, self.model = dict(phases), model
        for module in (*self.phases.values(), model):
            self.runtime.place(module)
        self._compile()
        self.players = {
            name: Player(name, self.phases[name], model, spec, settings, self.runtime)
            for name, spec in specs.items()
            if spec is not None
        }
        self.ema = EMA(model, settings.ema) if settings.ema else None
        self.guard = Guard([*self.phases.values(), model])
        self.loader = loader(rank=self.runtime.rank, world_size=self.runtime.world_size)
        self.state = TrainState(world_size=self.runtime.world_size)
        self.examiner = Examiner(validation, self.players, model, self.ema, settings, self.runtime)
        self.folder = RunFolder(out)
        self.journal = Journal(self.folder, settings, quiet=quiet or not self.runtime.is_main)
        self.checkpoints = CheckpointFolder(self.folder.checkpoints, settings.keep, self.journal.watcher.say)
        self.chronicle = Chronicle(self.journal, self.state, self.phases, model, settings, self.runtime)
        self.keeper = Keeper(
            self.checkpoints, self.state, self.phases, self.players, self.ema, self.chronicle, self.runtime
        )
        self._stream: Iterator[Batch] = iter(())

    def _compile(self) -> None:
        for name in self.settings.compile:
            try:
                self.model.get_submodule(name).compile()
            except AttributeError as error:
                known = [place for place, _ in self.model.named_modules() if place]
                raise UserError(f"engine.compile: the model has no part {name!r}{suggest(name, known)}") from error

    # The loop.

    def run(self, resume: bool = False) -> RunResult:
        """Trains up to ``max_steps``, or until a signal asks to stop; then saves.

        Args:
            resume: continue the run in the folder, if there is one; else the folder must be empty.

        Raises:
            UserError: what the user can mend: a folder in use, another recipe, a full disk, a run that diverges.
        """
        with writing(self.folder.path), StopSignal() as signal:
            try:
                self._start(resume)
                stopped = False
                while self.state.step < self.settings.max_steps and not stopped:
                    turns = self.run_cycle(measure=self._is_log_step(self.state.step + 1))
                    stopped = self.runtime.any(signal.requested)
                    self._record(turns, stopped)
                evaluation = {} if stopped else self._finish()
            finally:
                self._close()
                self.folder.release()
        return RunResult(folder=self.folder.path, step=self.state.step, finished=not stopped, evaluation=evaluation)

    def run_cycle(self, measure: bool = False) -> list[Turn]:
        """Lets every phase of the cycle move once; returns what the active ones did.

        Args:
            measure: also measure what is costly.
        """
        turns: list[Turn] = []
        shared: list[Batch] | None = None
        fakes: list[Tensor | None] = [None] * self.settings.accumulate
        key: str | None = None
        for entry in self.cycle:
            for _ in range(entry.repeat):
                clock = self._clock(entry.phase)
                if not self.phases[entry.phase].is_active(clock):
                    continue
                if shared is None or (self.settings.batches == "fresh" and not entry.reuse):
                    shared, fakes = self._draw(), [None] * self.settings.accumulate
                key = key if entry.reuse and key else own_key(entry.phase, clock)
                turn = self.players[entry.phase].play(
                    shared,
                    clock,
                    fakes,
                    guard=self.guard,
                    measure=measure,
                    weight_clip=entry.weight_clip,
                    noise_key=key,
                )
                self.state.updates[entry.phase] = clock.updates + 1
                self.chronicle.note(turn)
                turns.append(turn)
                if entry.phase == GENERATOR:
                    if self.ema is not None:
                        self.ema.update(skip=turn.bad, images=self._images_of(shared))
                    if self.settings.discriminator_fake == "reuse":
                        fakes = [report.fake for report in turn.reports]
        self.state.step += 1
        return turns

    def _clock(self, phase: str) -> Clock:
        return Clock(step=self.state.step, updates=self.state.updates.get(phase, 0))

    def _draw(self) -> list[Batch]:
        batches = [next(self._stream) for _ in range(self.settings.accumulate)]
        self.state.micro_batches += len(batches)
        self.state.images += self._images_of(batches)
        return batches

    def _images_of(self, batches: Sequence[Batch]) -> int:
        return sum(len(batch["image"]) for batch in batches) * self.runtime.world_size

    # Between two cycles: what is written, and when.

    def _is_log_step(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step in {1, self.settings.max_steps}

    def _record(self, turns: Sequence[Turn], stopped: bool) -> None:
        step, last = self.state.step, self.state.step == self.settings.max_steps
        saves = last or stopped or (self.settings.checkpoint_every > 0 and step % self.settings.checkpoint_every == 0)
        if self._is_log_step(step) or saves or self.runtime.reads_are_free:
            self._read_health()
        if self._is_log_step(step):
            self.chronicle.tell(turns)
        if not stopped and (last or self.examiner.is_due(step)):
            saves |= self._validate_or_save()
        if not stopped and self.settings.sample_every and (last or step % self.settings.sample_every == 0):
            self._draw_samples()
        if saves:
            self.keeper.save()
        self.journal.watcher.advance(step)

    def _read_health(self) -> None:
        message, worst = self.chronicle.read_health(), self.chronicle.health.worst
        if message and worst >= self.settings.skip_limit:
            good = self.checkpoints.steps()
            last = f"the last good checkpoint is {self.checkpoints.folder(good[-1])}" if good else "no checkpoint yet"
            raise UserError(f"stopped at step {self.state.step}: {worst} updates in a row failed ({message}); {last}")

    def _validate_or_save(self) -> bool:
        """Validates; what cannot be measured does not cost the steps before it."""
        try:
            return self._validate()
        except UserError:
            if self.runtime.world_size == 1:  # several ranks may not all have failed, and a save waits for all
                self.keeper.save()
            raise

    def _validate(self) -> bool:
        """Measures and logs; returns whether this is the best so far."""
        values = self.examiner.measure({name: self._clock(name) for name in self.players})
        if values:
            self.chronicle.log({f"val/{name}": value for name, value in values.items()})
        settings = self.examiner.settings
        if settings.monitor is None:
            return False
        if settings.monitor not in values:
            raise UserError(f"validation.monitor={settings.monitor!r}: not measured{suggest(settings.monitor, values)}")
        if not settings.is_better(values[settings.monitor], self.state.best_value):
            return False
        self.state.best_value, self.state.best_step = values[settings.monitor], self.state.step
        return True

    def _draw_samples(self) -> None:
        given, made = self.examiner.pictures(self.loader)
        self.runtime.on_main(lambda: write_samples(self.folder.samples / f"{self.state.step:08d}.png", given, made))

    # Start, end, and what lies between two runs.

    def _start(self, resume: bool) -> None:
        told = self.runtime.on_main(lambda: self.folder.claim(self.recipe, resume))
        if told:
            self.journal.watcher.say(told)
        step = self.keeper.restore_latest()
        if self.runtime.is_main:
            self.journal.open(-1 if step is None else step, self.recipe or {})
        self._prepare_to_train()
        if self.state.step == 0:
            self.chronicle.warn(standing_warnings(self.phases))
        if self.state.step == 0 and self.examiner.is_due(0):
            self._validate()
            self.runtime.on_main(lambda: self.folder.write_evaluation(self._evaluation()))
            self.state.at_start = self._metrics()

    def _prepare_to_train(self) -> None:
        for phase in self.phases.values():
            phase.train()
        self._stream = self.loader.batches(self.state.micro_batches)
        self.chronicle.start()

    def _finish(self) -> dict[str, Any]:
        if self.examiner.measured_at != self.state.step:
            self._validate()
        evaluation = self._evaluation()
        with self.examiner.averaged():
            self.runtime.on_main(lambda: self.folder.save_model(self.model))
        self.runtime.on_main(lambda: self.folder.write_evaluation(evaluation))
        return evaluation

    def _evaluation(self) -> dict[str, Any]:
        metrics = {f"{name}_start": value for name, value in self.state.at_start.items()} | self._metrics()
        objective = {name: value for name, value in self.examiner.values.items() if name not in metrics}
        counts = {"step": self.state.step, "training_images": self.state.images, "seconds": self.state.seconds}
        return {**metrics, **counts, "images": list(self.examiner.images), "objective": objective}

    def _metrics(self) -> dict[str, float]:
        """What was measured last, the objective left out."""
        return {name: value for name, value in self.examiner.values.items() if name.split("/")[0] not in self.players}

    def _close(self) -> None:
        self.journal.close()
        close = getattr(self._stream, "close", None)
        if close is not None:
            close()  # ends the loader's workers

    # Before a long run.

    def dry_run(self) -> DryRun:
        """One step, written nowhere: how large everything is. The networks are then trained by one step."""
        self._prepare_to_train()
        try:
            return account(self.players, self.runtime, lambda: self.run_cycle(measure=True))
        finally:
            self._close()
