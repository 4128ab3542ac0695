"""The one training loop. It counts generator updates and knows no loss, no model and no discriminator by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from torch import Tensor, nn

from smalti.engine.checkpoint import CheckpointFolder
from smalti.engine.chronicle import Chronicle
from smalti.engine.diagnostics import standing_warnings
from smalti.engine.dry_run import DryRun, account
from smalti.engine.ema import EMA
from smalti.engine.feed import Feed, LoaderFactory
from smalti.engine.health import Guard
from smalti.engine.keeper import Keeper
from smalti.engine.logging import Journal, check_tracker
from smalti.engine.run_folder import RunFolder, writing
from smalti.engine.runtime import Runtime
from smalti.engine.samples import write_samples
from smalti.engine.settings import GENERATOR, CycleEntry, EngineSettings, PhaseOptimizer, parse_cycle
from smalti.engine.signals import Interrupted, StopSignal
from smalti.engine.state import TrainState
from smalti.engine.turn import Player, Turn, own_key
from smalti.engine.validation import Examiner, Validation
from smalti.explain import explain
from smalti.objectives.phases import Phase
from smalti.objectives.weight import Clock
from smalti.outputs import Batch
from smalti.registry import UserError, suggest

VALIDATION, PICTURES = "validation", "pictures"  # what a step may owe
GO, STOP, FAILED = range(3)  # votes of the ranks on the next step


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


class Move(NamedTuple):
    """One update of a cycle: who moves, when, and whether it sees new images."""

    entry: CycleEntry
    clock: Clock
    draws: bool


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
        self.signal = StopSignal()
        self.loader = loader(rank=self.runtime.rank, world_size=self.runtime.world_size)
        self.feed = Feed(self.loader, self.signal)
        self.state = TrainState(world_size=self.runtime.world_size)
        self.examiner = Examiner(validation, self.players, model, self.ema, settings, self.runtime, self.signal)
        self.folder = RunFolder(out)
        self.journal = Journal(self.folder, settings, quiet=quiet or not self.runtime.is_main)
        self.checkpoints = CheckpointFolder(self.folder.checkpoints, settings.keep, self.journal.watcher.say)
        self.chronicle = Chronicle(self.journal, self.state, self.phases, model, settings, self.runtime)
        self.keeper = Keeper(
            self.checkpoints, self.state, self.phases, self.players, self.ema, self.chronicle, self.runtime
        )
        self._unsaved = False

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
        with writing(self.folder.path), self.signal:
            try:
                self._start(resume)
                finished = self._train()
                evaluation = self._finish() if finished else {}
            finally:
                self._close()
                self.folder.release()
        return RunResult(folder=self.folder.path, step=self.state.step, finished=finished, evaluation=evaluation)

    def _train(self) -> bool:
        """Steps up to the last one; False if a signal came before that, or before what the last step owes was done."""
        while self.state.step < self.settings.max_steps and self._fetch():
            turns = self.run_cycle(measure=self._is_log_step(self.state.step + 1))
            self._record(turns)
        finished = self.state.step >= self.settings.max_steps and not self.state.due
        if self._unsaved and not finished:
            self._save()
        return finished

    def _fetch(self) -> bool:
        """Has all data of the next step, on all ranks; False if one of them is asked to stop.

        Raises:
            UserError: if the data of a rank cannot be had; the steps so far are saved.
        """
        trouble = self.feed.fill(sum(move.draws for move in self._moves()) * self.settings.accumulate)
        agreed = self.runtime.largest(FAILED if trouble else STOP if self.signal.requested else GO)
        if agreed == FAILED:
            if self._unsaved:
                self._save()
            told = [text for text in self.runtime.gather(str(trouble or "")) if text]
            raise UserError(f"{told[0]}{self._kept()}") from trouble
        return agreed == GO

    def _moves(self) -> list[Move]:
        """The updates of the next cycle."""
        moves: list[Move] = []
        updates = dict(self.state.updates)
        for entry in self.cycle:
            for _ in range(entry.repeat):
                clock = Clock(step=self.state.step, updates=updates.get(entry.phase, 0))
                if self.phases[entry.phase].is_active(clock):
                    draws = not moves or (self.settings.batches == "fresh" and not entry.reuse)
                    moves.append(Move(entry, clock, draws))
                    updates[entry.phase] = clock.updates + 1
        return moves

    def run_cycle(self, measure: bool = False) -> list[Turn]:
        """Lets every phase of the cycle move once; returns what the active ones did.

        Args:
            measure: also measure what is costly.
        """
        turns: list[Turn] = []
        shared: list[Batch] = []
        fakes: list[Tensor | None] = []
        key: str | None = None
        for entry, clock, draws in self._moves():
            if draws:
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
        self._unsaved = True
        self.state.step += 1
        return turns

    def _clock(self, phase: str) -> Clock:
        return Clock(step=self.state.step, updates=self.state.updates.get(phase, 0))

    def _draw(self) -> list[Batch]:
        batches = [self.feed.take() for _ in range(self.settings.accumulate)]
        self.state.micro_batches += len(batches)
        self.state.images += self._images_of(batches)
        return batches

    def _images_of(self, batches: Sequence[Batch]) -> int:
        return sum(len(batch["image"]) for batch in batches) * self.runtime.world_size

    # Between two cycles: what is written, and when.

    def _is_log_step(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step in {1, self.settings.max_steps}

    def _record(self, turns: Sequence[Turn]) -> None:
        step, last = self.state.step, self.state.step == self.settings.max_steps
        saves = last or (self.settings.checkpoint_every > 0 and step % self.settings.checkpoint_every == 0)
        if self._is_log_step(step) or saves or self.runtime.reads_are_free:
            self._read_health()
        if self._is_log_step(step):
            self.chronicle.tell(turns)
        self.state.due = self._owed(step)
        if last and self.state.due:  # whatever they fail of, what was trained is safe
            self._save()
            self._save_model()
        best = self._settle()
        if saves or best:
            self._save()
        self.journal.watcher.advance(step)

    def _owed(self, step: int) -> list[str]:
        """What is due at ``step`` besides its log line, in this order."""
        last, every = step == self.settings.max_steps, self.settings.sample_every
        measures = self.examiner.is_due(step) or (last and self.examiner.validation is not None)
        draws = step > 0 and every > 0 and (last or step % every == 0)
        return [name for name, wanted in ((VALIDATION, measures), (PICTURES, draws)) if wanted]

    def _save(self) -> None:
        self.keeper.save()
        self._unsaved = False

    def _settle(self) -> bool:
        """Does what this step owes; whether a best was found. A signal leaves the rest for a resumption.

        Raises:
            UserError: if something cannot be done; the steps so far are saved.
        """
        best = False
        if self.state.due:
            self.keeper.collect()  # now, since later a rank may be gone
        for duty in list(self.state.due):
            try:
                best |= self._validate() if duty == VALIDATION else self._draw_samples()
            except Interrupted:
                break
            except Exception as error:
                self._rescue(duty, error)
            self.state.due.remove(duty)
            self._unsaved = self.state.step > 0
        return best

    def _rescue(self, duty: str, error: Exception) -> NoReturn:
        """Saves, waiting for no other rank, which may be gone; then says what could not be done."""
        if self._unsaved and self.runtime.is_main:
            self.keeper.write()
        told = str(error) if isinstance(error, UserError) else explain(error)
        model = f", the model in {self.folder.model}" if self.state.step == self.settings.max_steps else ""
        raise UserError(f"{duty} at step {self.state.step} failed: {told}{self._kept()}{model}") from error

    def _kept(self) -> str:
        return f"; the {self.state.step} steps so far are saved (--resume)" if self.state.step else ""

    def _read_health(self) -> None:
        message, worst = self.chronicle.read_health(), self.chronicle.health.worst
        if message and worst >= self.settings.skip_limit:
            good = self.checkpoints.steps()
            last = f"the last good checkpoint is {self.checkpoints.folder(good[-1])}" if good else "no checkpoint yet"
            raise UserError(f"stopped at step {self.state.step}: {worst} updates in a row failed ({message}); {last}")

    def _validate(self) -> bool:
        """Measures and logs; returns whether this is the best so far."""
        values = self.examiner.measure({name: self._clock(name) for name in self.players})
        self.state.measured, self.state.measured_at = values, self.state.step
        if values:
            self.chronicle.log({f"val/{name}": value for name, value in values.items()})
        if self.state.step == 0:
            self.state.at_start = self._metrics()
            self.runtime.on_main(lambda: self.folder.write_evaluation(self._evaluation()))
        settings = self.examiner.settings
        if settings.monitor is None:
            return False
        if settings.monitor not in values:
            raise UserError(f"validation.monitor={settings.monitor!r}: not measured{suggest(settings.monitor, values)}")
        if not settings.is_better(values[settings.monitor], self.state.best_value):
            return False
        self.state.best_value, self.state.best_step = values[settings.monitor], self.state.step
        return True

    def _draw_samples(self) -> bool:
        given, made = self.examiner.pictures(self.loader)
        self.runtime.on_main(lambda: write_samples(self.folder.samples / f"{self.state.step:08d}.png", given, made))
        return False

    # Start, end, and what lies between two runs.

    def _start(self, resume: bool) -> None:
        told = self.runtime.on_main(lambda: self.folder.claim(self.recipe, resume))
        if told:
            self.journal.watcher.say(told)
        step = self.keeper.restore_latest()
        if step is not None and step == self.settings.max_steps and self.state.measured_at != step:
            owed = self._owed(step)  # of a step that was not the last one when it was saved
            self.state.due = owed if VALIDATION in owed else self.state.due
        if self.runtime.is_main:
            self.journal.open(-1 if step is None else step, self.recipe or {}, VALIDATION not in self.state.due)
        self._prepare_to_train()
        if step is None:
            self.chronicle.warn(standing_warnings(self.phases))
            self.state.due = self._owed(0)
        self._settle()
        if self._unsaved:
            self._save()

    def _prepare_to_train(self) -> None:
        for phase in self.phases.values():
            phase.train()
        self.feed.start(self.state.micro_batches)
        self.chronicle.start()

    def _finish(self) -> dict[str, Any]:
        evaluation = self._evaluation()
        self._save_model()
        self.runtime.on_main(lambda: self.folder.write_evaluation(evaluation))
        return evaluation

    def _save_model(self) -> None:
        with self.examiner.averaged():
            self.runtime.on_main(lambda: self.folder.save_model(self.model))

    def _evaluation(self) -> dict[str, Any]:
        metrics = {f"{name}_start": value for name, value in self.state.at_start.items()} | self._metrics()
        objective = {name: value for name, value in self.state.measured.items() if name not in metrics}
        counts = {"step": self.state.step, "training_images": self.state.images, "seconds": self.state.seconds}
        return {**metrics, **counts, "images": list(self.examiner.images), "objective": objective}

    def _metrics(self) -> dict[str, float]:
        """What was measured last, the objective left out."""
        return {name: value for name, value in self.state.measured.items() if name.split("/")[0] not in self.players}

    def _close(self) -> None:
        self.journal.close()
        self.feed.close()

    # Before a long run.

    def dry_run(self) -> DryRun:
        """One step, written nowhere: how large everything is. The networks are then trained by one step."""
        self._prepare_to_train()
        try:
            return account(self.players, self.runtime, lambda: self.run_cycle(measure=True))
        finally:
            self._close()
