"""The one training loop. It counts generator updates and knows no loss, no model and no discriminator by name."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from smalti.engine.checkpoint import CheckpointFolder
from smalti.engine.chronicle import Chronicle
from smalti.engine.compiling import compile_parts
from smalti.engine.data_watch import DataWatch
from smalti.engine.decoration import decoration
from smalti.engine.diagnosis.live import Doctor
from smalti.engine.diagnostics import accumulation_warnings
from smalti.engine.dry_run import DryRun, account
from smalti.engine.duties import VALIDATION, Duties
from smalti.engine.ema import EMA
from smalti.engine.environment import note, surroundings
from smalti.engine.feed import Feed, LoaderFactory
from smalti.engine.health import Guard
from smalti.engine.keeper import OPTIMIZERS, TRAIN, Keeper
from smalti.engine.logging import Journal, check_tracker
from smalti.engine.paths import detours, line_of, paths_of, told_before
from smalti.engine.result import RunResult
from smalti.engine.run_folder import RunFolder, writing
from smalti.engine.runtime import Runtime
from smalti.engine.samples import Paint, sample_images
from smalti.engine.settings import GENERATOR, CycleEntry, EngineSettings, PhaseOptimizer, parse_cycle
from smalti.engine.signals import StopSignal
from smalti.engine.state import TrainState
from smalti.engine.turn import Player, Turn, own_key
from smalti.engine.validation import Examiner, Validation
from smalti.objectives.phases import Phase
from smalti.objectives.weight import Clock
from smalti.outputs import Batch, batch_size
from smalti.registry import UserError

GO, STOP, FAILED = range(3)  # votes of the ranks on the next step


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
        sources: place in the recipe -> data source; what they consist of goes with the checkpoints, and a run is not
            resumed silently if it changed.
        quiet: show no progress.
        paint: makes the sample pictures.
        companions: name -> text of files that are kept in the run folder and beside the model.

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
        sources: Mapping[str, Any] | None = None,
        quiet: bool = False,
        paint: Paint = sample_images,
        companions: Mapping[str, str] | None = None,
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
        compile_parts(model, settings.compile)
        self.players = {
            name: Player(name, self.phases[name], model, spec, settings, self.runtime)
            for name, spec in specs.items()
            if spec is not None
        }
        self.ema = EMA(model, settings.ema) if settings.ema else None
        self.guard, self.signal = Guard([*self.phases.values(), model]), StopSignal()
        self.loader = loader(rank=self.runtime.rank, world_size=self.runtime.world_size)
        self.feed = Feed(self.loader, self.signal)
        self.state = TrainState(world_size=self.runtime.world_size)
        self.examiner = Examiner(validation, self.players, model, self.ema, settings, self.runtime, self.signal, paint)
        self.folder = RunFolder(out, companions)
        self.journal = Journal(self.folder, settings, quiet=quiet or not self.runtime.is_main)
        self.checkpoints = CheckpointFolder(
            self.folder.checkpoints, settings.keep, self.journal.watcher.say, (TRAIN, OPTIMIZERS)
        )
        self.doctor = Doctor(self.journal, self.players, model, self.ema, self.runtime, recipe)
        self.chronicle = Chronicle(self.journal, self.state, self.phases, model, settings, self.runtime, self.doctor)
        self.keeper = Keeper(
            self.checkpoints, self.state, self.phases, self.players, self.ema, self.chronicle, self.runtime
        )
        self.watch = DataWatch(sources or {})
        parts = (self.examiner, self.players, self.loader, self.folder, self.state, self.keeper, self.chronicle)
        self.duties = Duties(*parts, settings, self.runtime)

    # The loop.

    def run(self, resume: bool = False, *, reschedule: bool = False, allow_changed_data: bool = False) -> RunResult:
        """Trains up to ``max_steps``, or until a signal asks to stop; then saves.

        Args:
            resume: continue the run in the folder, if there is one; else the folder must be empty.
            reschedule: let another ``max_steps`` move the learning rates of that run.
            allow_changed_data: go on although the images of that run are no longer what they were.

        Raises:
            UserError: what the user can mend: a folder in use, another recipe, a full disk, a run that diverges.
        """
        if allow_changed_data and not resume:
            raise UserError("allow_changed_data (--allow-changed-data) says how to resume: add resume (--resume)")
        with decoration(), writing(self.folder.path), self.runtime.together(), self.runtime.repeatable(), self.signal:
            try:
                self._start(resume, reschedule, allow_changed_data)
                finished = self._train()
                evaluation = self._finish() if finished else {}
            finally:
                self._close()
                self.folder.release()
        return RunResult(
            folder=self.folder.path,
            step=self.state.step,
            finished=finished,
            evaluation=evaluation,
            findings=tuple(self.doctor.diagnosis.findings),
        )

    def _train(self) -> bool:
        """Steps up to the last one; False if a signal came before that, or before what the last step owes was done."""
        while self.state.step < self.settings.max_steps and self._fetch():
            turns = self.run_cycle(measure=self._is_log_step(self.state.step + 1))
            self._record(turns)
        finished = self.state.step >= self.settings.max_steps and not self.state.due
        if self.keeper.unsaved and not finished:
            self.keeper.save()
        return finished

    def _fetch(self) -> bool:
        """Has all data of the next step, on all ranks; False if one of them is asked to stop.

        Raises:
            UserError: if the data of a rank cannot be had; the steps so far are saved.
        """
        with self.doctor.clockwork.waiting():
            trouble = self.feed.fill(sum(move.draws for move in self._moves()) * self.settings.accumulate)
        agreed = self.runtime.largest(FAILED if trouble else STOP if self.signal.requested else GO)
        if agreed == FAILED:
            if self.keeper.unsaved:
                self.keeper.save()
            told = [text for text in self.runtime.gather(str(trouble or "")) if text]
            raise UserError(f"{told[0]}{self.duties.kept()}") from trouble
        return agreed == GO

    def _moves(self) -> list[Move]:
        """The updates of the next cycle."""
        moves: list[Move] = []
        updates = dict(self.state.updates)
        for entry in self.cycle:
            for _ in range(entry.repeat):
                clock = replace(self.state.clock(entry.phase), updates=updates.get(entry.phase, 0))
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
        self.doctor.teachers.looking = measure
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
                    images = self._images_of(shared)
                    self.ema.update(skip=turn.bad, images=images)
                    self.doctor.averaged(self.state.updates[GENERATOR], images)
                if self.settings.discriminator_fake == "reuse":
                    fakes = [report.fake for report in turn.reports]
        self.keeper.unsaved = True
        self.state.step += 1
        self.chronicle.start_terms()
        return turns

    def _draw(self) -> list[Batch]:
        batches = [self.feed.take() for _ in range(self.settings.accumulate)]
        self.state.micro_batches += len(batches)
        self.state.images += self._images_of(batches)
        self.doctor.drawn(batches)
        return batches

    def _images_of(self, batches: Sequence[Batch]) -> int:
        return sum(batch_size(batch) for batch in batches) * self.runtime.world_size

    # Between two cycles: what is written, and when.

    def _is_log_step(self, step: int) -> bool:
        return step % self.settings.log_every == 0 or step in {1, self.settings.max_steps}

    def _record(self, turns: Sequence[Turn]) -> None:
        step, last = self.state.step, self.state.step == self.settings.max_steps
        saves = last or (self.settings.checkpoint_every > 0 and step % self.settings.checkpoint_every == 0)
        if self._is_log_step(step) or saves or self.runtime.reads_are_free:
            self.runtime.checks.read()
            self._read_health()
        if self._is_log_step(step):
            self.chronicle.tell(turns)
        self.state.due = self.duties.owed(step)
        if last and self.state.due:  # whatever they fail of, what was trained is safe
            self._refuse_diverged()
            self.keeper.save()
            self._save_model()
        best = self.duties.settle()
        if saves or best:
            self.keeper.save()
        self.journal.watcher.advance(step)

    def _read_health(self) -> None:
        message, worst = self.chronicle.read_health(), self.chronicle.health.worst
        if message and worst >= self.settings.skip_limit:
            told = f"stopped at step {self.state.step}: {worst} updates in a row failed ({message})"
            raise UserError(f"{told}; {self._last_good()}")

    def _last_good(self) -> str:
        good = self.checkpoints.good_steps()
        return f"the last good checkpoint is {self.checkpoints.folder(good[-1])}" if good else "no good checkpoint yet"

    def _refuse_diverged(self) -> None:
        """A run whose last two updates failed, or whose weights or losses are not finite, leaves no model.

        Raises:
            UserError: if it is so; its last checkpoint is written.
        """
        if self.keeper.is_well(patience=2):
            return
        if self.keeper.unsaved:
            self.keeper.save()
        failing = [f"{name}: {count}" for name, count in self.chronicle.health.consecutive.items() if count]
        why = f"updates that failed in a row: {', '.join(failing)}" if failing else "weights or losses are not finite"
        raise UserError(f"the run diverged by step {self.state.step}, no model is saved ({why}); {self._last_good()}")

    # Start, end, and what lies between two runs.

    def _start(self, resume: bool, reschedule: bool, allow_changed_data: bool) -> None:
        places = self.watch.locations
        told = self.runtime.on_main(lambda: self.folder.claim(self.recipe, resume, reschedule, places))
        if told:
            self.journal.watcher.say(told)
        step = self.keeper.restore_latest()
        changed = self.runtime.on_main(lambda: self._settle_data(allow_changed_data))
        self.runtime.on_main(lambda: note(self.folder.path, step or 0, surroundings(self.runtime, self.settings)))
        if step is not None and step == self.settings.max_steps and self.state.measured_at != step:
            owed = self.duties.owed(step)  # of a step that was not the last one when it was saved
            self.state.due = owed if VALIDATION in owed else self.state.due
        if self.runtime.is_main:
            measured = VALIDATION not in self.state.due
            self.journal.open(-1 if step is None else step, self.recipe or {}, measured, self.state.log_lines)
            self.doctor.open(-1 if step is None else step)
        self._prepare_to_train()
        self.chronicle.warn(changed)
        slow = self._tell_paths()
        if step is None:
            self.chronicle.warn(slow)
            self.chronicle.warn(accumulation_warnings(self.phases, self.settings.accumulate))
            self.state.due = self.duties.owed(0)
        self.duties.settle()
        if self.keeper.unsaved:
            self.keeper.save()

    def _settle_data(self, allowed: bool) -> list[str]:
        """Refuses data that are not those of the run, or says what changed; from here on they are the run's own."""
        moved = self.folder.moved(self.recipe, self.watch.locations)
        self.keeper.data, changed = self.watch.settle(self.keeper.data, moved, allowed, self.state)
        self.folder.write_recipe(self.recipe)
        return changed

    def _tell_paths(self) -> list[str]:
        """Says in a line which way the work takes here; what is slow for want of a fast way, to be warned of."""
        reasons = {name: player.replayer.reason for name, player in self.players.items()}
        runtime = self.runtime
        paths = paths_of(self.model, self.settings, runtime.device, runtime.memory_format, reasons)
        self.chronicle.paths = line_of(paths)
        self.journal.watcher.say(self.chronicle.paths)
        before = told_before(self.folder.metrics)
        if before is not None and before != self.chronicle.paths:
            self.chronicle.warn([f"the run goes on another way, {self.chronicle.paths}; it began as {before}"])
        return detours(paths, runtime.device)

    def _prepare_to_train(self) -> None:
        for phase in self.phases.values():
            phase.train()
        self.feed.start(self.state.micro_batches)
        self.chronicle.start()

    def _finish(self) -> dict[str, Any]:
        self._refuse_diverged()
        step = self._save_model()
        evaluation = self.duties.evaluation(step)
        if step != self.state.step:
            best = self.examiner.settings.monitor
            self.journal.watcher.say(f"model/ is of step {step}, the best {best}; engine.save: last takes the last")
        self.runtime.on_main(lambda: self.folder.write_evaluation(evaluation))
        return evaluation

    def _save_model(self) -> int:
        """Writes ``model/``; the step that its weights are of."""
        step = self.duties.model_step()
        with self.keeper.weights_of(step), self.examiner.averaged():
            self.runtime.on_main(lambda: self.folder.save_model(self.model))
        return step

    def _close(self) -> None:
        self.journal.close()
        self.feed.close()

    # Before a long run.

    def dry_run(self) -> DryRun:
        """One step, written nowhere: how large everything is. The networks are then trained by one step."""
        self._prepare_to_train()
        try:
            found = account(self.players, self.runtime, lambda: self.run_cycle(measure=True))
            self.runtime.checks.read()
            return found
        finally:
            self._close()
