"""What a run says of itself between two cycles: its numbers, its warnings, its skipped steps."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from smalti.engine.diagnosis.live import Doctor
from smalti.engine.diagnostics import smooth
from smalti.engine.health import ELSEWHERE, Health
from smalti.engine.lazy import LazyTerms
from smalti.engine.logging import Journal, codebook_usage, flatten_reports, mean_over_ranks, to_host
from smalti.engine.paths import PATHS
from smalti.engine.plateau import Plateaus
from smalti.engine.runtime import Runtime
from smalti.engine.settings import EngineSettings
from smalti.engine.state import TrainState
from smalti.engine.turn import Turn
from smalti.objectives.phases import Phase


class Chronicle:
    """Gathers from all ranks what a step was, and lets the first of them write it down.

    Args:
        journal: where it is written.
        state: counters of the run, which this keeps the time and the skipped updates of.
        phases: name -> phase.
        model: whose codebooks are counted.
        settings: of the run.
        runtime: ranks.
        doctor: looks at what is told.
    """

    def __init__(
        self,
        journal: Journal,
        state: TrainState,
        phases: Mapping[str, Phase],
        model: nn.Module,
        settings: EngineSettings,
        runtime: Runtime,
        doctor: Doctor,
    ) -> None:
        self.journal, self.state = journal, state
        self.phases, self.model = phases, model
        self.settings, self.runtime, self.doctor = settings, runtime, doctor
        self.health, self.lazy = Health(), LazyTerms()
        self.paths = ""  # which way the work takes; stands in the record of the first step
        self.plateaus = Plateaus(phases, state, runtime)
        self._began = time.perf_counter()  # less what former runs in this folder took
        self._last = (self._began, 0)

    def start(self) -> None:
        """Starts the clock, at the seconds and images that the state has."""
        now = time.perf_counter()
        self._began, self._last = now - self.state.seconds, (now, self.state.images)

    def count_time(self) -> None:
        """Brings the seconds of the state up to now."""
        self.state.seconds = time.perf_counter() - self._began

    def note(self, turn: Turn) -> None:
        """Keeps what an update was, without waiting for the device."""
        self.health.note(self.state.step + 1, turn.phase, turn.bad, turn.suspects)
        self.lazy.note(self.phases[turn.phase], turn)
        self.doctor.note(turn)
        self.plateaus.note(turn)

    def start_terms(self) -> None:
        """Lets the terms start whose plateau this step has reached, and says so."""
        for told in self.plateaus.decide():
            if self.runtime.is_main:
                self.journal.say(self.state.step, told)

    def tell(self, turns: Sequence[Turn]) -> None:
        """Writes the record of a log step, and what the doctor says of it."""
        record = self._record(turns)
        smooth(record, self.phases, self.state)
        self.log(record)

    def _record(self, turns: Sequence[Turn]) -> dict[str, Any]:
        record: dict[str, Any] = {f"train/{name}": value for name, value in self.lazy.numbers().items()}
        for turn in turns:
            values = (
                flatten_reports(turn.reports)
                | to_host(turn.clipped)
                | {
                    "gradient_norm": turn.gradient_norm.item(),
                    "learning_rate": turn.learning_rate,
                    "skipped_steps": self.state.skipped.get(turn.phase, 0),
                    "updates": self.state.updates[turn.phase],
                }
            )
            record |= {f"train/{turn.phase}/{name}": value for name, value in values.items()}
        record |= {f"train/{name}": value for name, value in codebook_usage(self.model).items()}
        record |= self.doctor.numbers(turns)
        now, (then, images) = time.perf_counter(), self._last
        self._last = (now, self.state.images)
        speed = (self.state.images - images) / max(now - then, 1e-9)
        left = (self.settings.max_steps - self.state.step) * self.state.images / self.state.step
        head: dict[str, Any] = {"images_per_second": speed, "eta_seconds": left / speed if speed else 0.0}
        head |= {PATHS: self.paths} if self.state.step == 1 and self.paths else {}
        return head | mean_over_ranks(self.runtime.gather(record))

    def log(self, record: Mapping[str, Any]) -> None:
        """Writes a record of the present step, and lets the doctor look at it."""
        self.count_time()
        head = {"step": self.state.step, "images": self.state.images, "seconds": round(self.state.seconds, 3)}
        line = head | dict(record) | self.doctor.held_out(record)
        if self.runtime.is_main:
            self.journal.log(line)
        self.doctor.look(line)

    def warn(self, warnings: Sequence[str]) -> None:
        """Writes warnings at the present step."""
        if self.runtime.is_main:
            for warning in warnings:
                self.journal.warn(self.state.step, warning)

    def read_health(self) -> str:
        """Counts and names the updates that failed since the last reading; the last of them, empty if none did."""
        incidents = self.health.read()
        message = ""
        if not incidents:  # the same on all ranks: whether an update was bad is agreed among them
            return message
        everywhere = self.runtime.gather([incident.guilty for incident in incidents])
        for incident, *names in zip(incidents, *everywhere, strict=True):
            self.state.skipped[incident.phase] = self.state.skipped.get(incident.phase, 0) + 1
            guilty = next((name for name in names if name != ELSEWHERE), ELSEWHERE)
            message = f"{incident.phase}: {guilty} is not finite"
            if self.runtime.is_main:
                self.journal.skipped(incident.step, message)
            self.doctor.look({"step": incident.step, "skipped": message})
        return message
