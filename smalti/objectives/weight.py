"""The weight of a term over time: waiting, ramp, lazy terms.

>>> from smalti.objectives.weight import Clock, Schedule
>>> [Schedule(weight=2.0, start=10, ramp=4).at(Clock(step)) for step in (9, 10, 11, 14, 99)]
[0.0, 0.0, 0.5, 2.0, 2.0]
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

Shape = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Clock:
    """When a phase is asked.

    Args:
        step: generator updates completed before this one; THE step of recipes and logs.
        updates: updates that the asked phase itself has completed, the counter of lazy terms.
        started: key of a plateau that was reached -> the step at which it was.
    """

    step: int = 0
    updates: int = 0
    started: Mapping[str, int] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True)
class Plateau:
    """A start that the run finds by itself: when the terms that compare with data stop getting better.

    The mean of these terms, as they are weighted, over ``window`` generator updates is compared with that of the window
    before. Terms with equal options start together, those of a discriminator too.

    Args:
        when: ``plateau``.
        window: generator updates of a mean; it is looked at the end of each.
        improvement: share of the last mean by which the new one must be better, else the plateau is reached.
        after: step before which it is not reached, such as the end of a warm-up.
        latest: step at which it counts as reached in any case; None: never.
    """

    when: Literal["plateau"]
    window: Annotated[int, Field(ge=1)] = 200
    improvement: Annotated[float, Field(ge=0, lt=1)] = 0.02
    after: Annotated[int, Field(ge=0)] = 0
    latest: Annotated[int, Field(ge=1)] | None = None

    @property
    def key(self) -> str:
        """What plateaus with equal options are known by."""
        return f"{self.window}/{self.improvement}/{self.after}/{self.latest}"

    def is_reached(self, step: int, mean: float, before: float | None) -> bool:
        """Whether this is it, at the end of a window with this mean after one with the mean ``before``.

        >>> Plateau(when="plateau").is_reached(400, 0.99, 1.0), Plateau(when="plateau").is_reached(400, 0.9, 1.0)
        (True, False)
        """
        if self.latest is not None and step >= self.latest:
            return True
        return before is not None and step >= self.after and mean > before - self.improvement * abs(before)


Start = Annotated[int, Field(ge=0)] | Plateau


def ramp_factor(step: int, start: float, ramp: int, shape: Shape = "linear") -> float:
    """0 before ``start``, then a rise to 1 over ``ramp`` steps; without a ramp 1 from ``start`` on.

    >>> [round(ramp_factor(step, 10, 4, "cosine"), 3) for step in (9, 10, 11, 12, 14)]
    [0.0, 0.0, 0.146, 0.5, 1.0]
    """
    if step < start:
        return 0.0
    progress = min(1.0, (step - start) / ramp) if ramp else 1.0
    return progress if shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * progress)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """When a term acts, and how much.

    Args:
        weight: the number it is multiplied by.
        start: the first step at which it acts; ``{when: plateau}`` finds it, see :class:`Plateau`.
        ramp: steps over which the weight rises from 0 to its value.
        shape: form of the rise.
        every: acts on every k-th update of its OWN phase (lazy regularisation, Karras et al., arXiv:1912.04958).
        lazy_scale: whether a lazy term is multiplied by ``every``, so that ``weight`` keeps its meaning.
    """

    weight: float = 1.0
    start: Start = 0
    ramp: Annotated[int, Field(ge=0)] = 0
    shape: Shape = "linear"
    every: Annotated[int, Field(ge=1)] = 1
    lazy_scale: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"weight={self.weight!r}: expected a finite number")
        start = 0 if isinstance(self.start, Plateau) else self.start
        for name, value, least in (("start", start, 0), ("ramp", self.ramp, 0), ("every", self.every, 1)):
            if value < least:
                raise ValueError(f"{name}={value!r}: expected a whole number of at least {least}")
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"shape={self.shape!r}: expected 'linear' or 'cosine'")

    def started_at(self, clock: Clock) -> float:
        """The step of its start; infinite as long as it is not known."""
        return clock.started.get(self.start.key, math.inf) if isinstance(self.start, Plateau) else self.start

    def is_waiting(self, clock: Clock) -> bool:
        """Whether its start lies ahead."""
        return clock.step < self.started_at(clock)

    def is_due(self, clock: Clock) -> bool:
        """Whether it is evaluated at this update: it has started, and it is its turn if it is lazy."""
        return not self.is_waiting(clock) and clock.updates % self.every == 0

    def at(self, clock: Clock) -> float:
        """The effective weight: number x ramp (x ``every`` for a lazy term), 0 when it is not due."""
        if not self.is_due(clock):
            return 0.0
        lazy = self.every if self.lazy_scale else 1
        return self.weight * ramp_factor(clock.step, self.started_at(clock), self.ramp, self.shape) * lazy
