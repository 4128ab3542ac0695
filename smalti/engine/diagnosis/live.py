"""The doctor of a run that goes on: gathers signals, lets the rules look at each log step, and says what is new.

Between two log steps nothing here waits for the device, and nothing here may end a run.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from smalti.diagnosis import FILE, Diagnosis, Finding
from smalti.engine.diagnosis.safely import Safely
from smalti.engine.diagnosis.signals import batch_normalised, distance, revivals, slopes_under_batch_norm
from smalti.engine.diagnosis.surroundings import Clockwork, Labels, Teachers, is_told_labels, memory
from smalti.engine.diagnosis.window import Window, compared_terms
from smalti.engine.ema import EMA
from smalti.engine.logging import Journal, MetricsFile, to_host
from smalti.engine.runtime import Runtime
from smalti.engine.settings import GENERATOR
from smalti.engine.turn import Player, Turn
from smalti.objectives.phases import GeneratorPhase
from smalti.outputs import Batch


class Doctor:
    """Watches a run; the same on all ranks, and the first one writes ``diagnosis.jsonl``.

    Args:
        journal: where it speaks.
        players: name -> player.
        model: whose codebooks are looked at.
        ema: averaged weights, or None.
        runtime: ranks.
        recipe: resolved, or None.
    """

    def __init__(
        self,
        journal: Journal,
        players: Mapping[str, Player],
        model: nn.Module,
        ema: EMA | None,
        runtime: Runtime,
        recipe: Mapping[str, Any] | None,
    ) -> None:
        self.journal, self.runtime, self.ema = journal, runtime, ema
        phases = {name: player.phase for name, player in players.items()}
        self.diagnosis = Diagnosis(recipe)
        self.file = MetricsFile(journal.folder.path / FILE)
        self.compared = compared_terms(phases[GENERATOR]) if GENERATOR in phases else ()
        self.windows = {
            name: Window(self.compared if name == GENERATOR else (), player.spec.clip)
            for name, player in players.items()
        }
        teaching = [phase.named_teachers for phase in phases.values() if isinstance(phase, GeneratorPhase)]
        self.teachers = Teachers({name: teacher for named in teaching for name, teacher in named.items()})
        self.labels, self.clockwork = Labels(), Clockwork()
        self.labelled = any(map(is_told_labels, phases.values()))
        self.safely, self.players = Safely(), tuple(players.values())
        self._told: set[str] = set()  # what failed, and was said to have
        self.initial = 1.0  # share of the weights before training in the averaged ones
        self._decay = 0.0
        fixed = self.safely("revival", lambda: revivals(model))
        fixed |= self.safely("slopes", lambda: slopes_under_batch_norm(phases) | batch_normalised(phases))
        self._fixed = {f"train/{name}": value for name, value in fixed.items()}

    # What is noted at every step.

    def note(self, turn: Turn) -> None:
        """Keeps what an update was, without waiting for the device."""
        self.safely.do("updates", self.windows[turn.phase].note, turn)

    def drawn(self, batches: Sequence[Batch]) -> None:
        """Looks at the labels of batches that were drawn, if a network is told labels."""
        if self.labelled:
            self.safely.do("labels", self.labels.note, batches)

    def averaged(self, updates: int, images: int) -> None:
        """Notes an update of the averaged weights, the n-th, with so many images."""
        if self.ema is not None:
            self._decay = self.ema.settings.decay_at(updates, images)
            self.initial *= self._decay

    # What is said at a log step.

    def numbers(self, turns: Sequence[Turn]) -> dict[str, Any]:
        """What is logged besides, by full names; waits for the device."""
        found: dict[str, Any] = self._fixed | self.safely("windows", self._windows)
        signals = {name: value for turn in turns for name, value in turn.signals.items()} | self.teachers.numbers()
        signals |= self.safely("averages", self._averages)
        found |= {f"train/{name}": value for name, value in (to_host(signals) | self.labels.numbers()).items()}
        return found | {"data_wait": self.clockwork.share()} | memory(self.runtime.device)

    def _windows(self) -> dict[str, float]:
        return {
            f"train/{n}/{key}": value for n, window in self.windows.items() for key, value in window.numbers().items()
        }

    def _averages(self) -> dict[str, Any]:
        if self.ema is None:
            return {}
        return {"ema/initial": self.initial, "ema/decay": self._decay} | distance(self.ema.shadow, self.ema.parameters)

    def held_out(self, record: Mapping[str, Any]) -> dict[str, float]:
        """``val/generator/fit`` of a record of a validation: what the terms that compare with data add up to."""
        names = [f"val/{GENERATOR}/{name}/weighted" for name in self.compared]
        values = [record[name] for name in names if isinstance(record.get(name), (int, float))]
        return {f"val/{GENERATOR}/fit": sum(values)} if values else {}

    def look(self, line: Mapping[str, Any]) -> None:
        """Lets the rules look at a line of the log, and tells what is new."""
        self.tell(self.diagnosis.take(line))
        failures = [self.diagnosis.failed, self.safely.failed, *(player.safely.failed for player in self.players)]
        for name, why in [item for failed in failures for item in failed.items()]:
            if name not in self._told:
                self._told.add(name)
                if self.runtime.is_main:
                    self.journal.warn(int(line["step"]), f"diagnosis: {name} failed and is switched off: {why}")

    def tell(self, changed: Sequence[Finding]) -> None:
        """Says what was found, or is over, and writes it down."""
        for finding in changed if self.runtime.is_main else ():
            if finding.over is None:
                self.journal.warn(finding.step, finding.line())
            else:
                about = f" ({finding.subject})" if finding.subject else ""
                self.journal.watcher.say(f"step {finding.over}: {finding.id}{about} is over")
            self.file.write(finding.line_of_file())

    def open(self, step: int) -> None:
        """Forgets what was written after ``step`` (-1: everything)."""
        self.file.go_back(step)

    # What travels with a checkpoint.

    def pending(self) -> dict[str, Any]:
        """What this rank has noted since the last log step; waits for the device."""
        sums = {name: window.sums() for name, window in self.windows.items()}
        return {"windows": sums, "labels": self.labels.pending()}

    def as_dict(self, pending: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Plain values, with what all ranks have pending."""
        return {"diagnosis": self.diagnosis.as_dict(), "initial": self.initial, "pending": list(pending)}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes what ``as_dict`` gave; nothing of a checkpoint from before there was a doctor."""
        if not values:
            return
        self.diagnosis.restore(values["diagnosis"])
        self._told |= set(self.diagnosis.failed)
        self.initial = values["initial"]
        if len(values["pending"]) == self.runtime.world_size:
            own = values["pending"][self.runtime.rank]
            for name, sums in own["windows"].items():
                self.windows[name].restore(sums)
            self.labels.restore(own["labels"])
