"""Where a run stands: counters, nothing else. Weights, moments and averages live with their owners."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from smalti.objectives.weight import Clock
from smalti.registry import UserError


@dataclass(kw_only=True)
class TrainState:
    """Counters of a run, all of them plain numbers.

    Args:
        step: generator updates begun and finished; a skipped one counts, so that step and learning rate go on.
        micro_batches: micro-batches this rank has drawn from the loader.
        images: images all ranks have drawn.
        updates: phase -> updates, skipped ones included.
        skipped: phase -> updates skipped for a non-finite loss or gradient.
        seconds: time spent, over all resumptions.
        best_value: best monitored value so far.
        best_step: the step it was reached at.
        best_measured: name -> held-out number of that step.
        world_size: number of processes, which decides who saw which images.
        at_start: metric -> value before the first step, if it was measured.
        measured: name -> held-out number of the last validation.
        measured_at: the step of that validation.
        due: what this step still owes: "validation", "pictures"; a stop left it for later.
        averages: name -> what diagnostics smooth over log steps.
        lazy: name -> value of a lazy term at its last turn.
        failing: phase -> updates that failed in a row, up to now.
        log_lines: lines of ``metrics.jsonl``.
        started: key of a plateau that was reached -> the step at which it was.
        plateaus: key of one that was not -> the mean of its last window.
        windows: rank -> key of one that was not -> sum and number of values since.
    """

    step: int = 0
    micro_batches: int = 0
    images: int = 0
    updates: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    best_value: float | None = None
    best_step: int | None = None
    best_measured: dict[str, float] = field(default_factory=dict)
    world_size: int = 1
    at_start: dict[str, float] = field(default_factory=dict)
    measured: dict[str, float] = field(default_factory=dict)
    measured_at: int | None = None
    due: list[str] = field(default_factory=list)
    averages: dict[str, float] = field(default_factory=dict)
    lazy: dict[str, float] = field(default_factory=dict)
    failing: dict[str, int] = field(default_factory=dict)
    log_lines: int = 0
    started: dict[str, int] = field(default_factory=dict)
    plateaus: dict[str, float] = field(default_factory=dict)
    windows: list[dict[str, Any]] = field(default_factory=list)

    def clock(self, phase: str) -> Clock:
        """When the next update of ``phase`` is."""
        return Clock(step=self.step, updates=self.updates.get(phase, 0), started=dict(self.started))

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return asdict(self)

    def restore(self, values: Mapping[str, Any]) -> None:
        """Takes the values that ``as_dict`` described, in place: others hold this state, too.

        What only an earlier version kept (the alarms of critics) is left out.
        """
        known = {name: value for name, value in values.items() if name != "alarms"}
        vars(self).update(vars(type(self)(**known)))

    def share_among(self, world_size: int) -> None:
        """Goes on with another number of ranks: the stream continues where it was, though not in the same shares.

        Raises:
            UserError: if the micro-batches drawn so far do not divide among the ranks.
        """
        drawn = self.micro_batches * self.world_size
        if drawn % world_size:
            raise UserError(
                f"{drawn} micro-batches were drawn by {self.world_size} processes: they do not divide among "
                f"{world_size}; resume with a divisor of {drawn}"
            )
        self.micro_batches, self.world_size = drawn // world_size, world_size
