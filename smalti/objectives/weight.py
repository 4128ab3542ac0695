"""The weight of a term over time: waiting, ramp, lazy terms.

>>> from smalti.objectives.weight import Clock, Schedule
>>> [Schedule(weight=2.0, start=10, ramp=4).at(Clock(step)) for step in (9, 10, 11, 14, 99)]
[0.0, 0.0, 0.5, 2.0, 2.0]
"""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

Shape = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Clock:
    """When a phase is asked.

    Args:
        step: generator updates completed before this one; THE step of recipes and logs.
        updates: updates that the asked phase itself has completed, the counter of lazy terms.
    """

    step: int = 0
    updates: int = 0


def ramp_factor(step: int, start: int, ramp: int, shape: Shape = "linear") -> float:
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
        start: the first step at which it acts.
        ramp: steps over which the weight rises from 0 to its value.
        shape: form of the rise.
        every: acts on every k-th update of its OWN phase (lazy regularisation, Karras et al., arXiv:1912.04958).
        lazy_scale: whether a lazy term is multiplied by ``every``, so that ``weight`` keeps its meaning.
    """

    weight: float = 1.0
    start: Annotated[int, Field(ge=0)] = 0
    ramp: Annotated[int, Field(ge=0)] = 0
    shape: Shape = "linear"
    every: Annotated[int, Field(ge=1)] = 1
    lazy_scale: bool = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.weight):
            raise ValueError(f"weight={self.weight!r}: expected a finite number")
        for name, value, least in (("start", self.start, 0), ("ramp", self.ramp, 0), ("every", self.every, 1)):
            if value < least:
                raise ValueError(f"{name}={value!r}: expected a whole number of at least {least}")
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"shape={self.shape!r}: expected 'linear' or 'cosine'")

    def is_waiting(self, clock: Clock) -> bool:
        """Whether its start lies ahead."""
        return clock.step < self.start

    def is_due(self, clock: Clock) -> bool:
        """Whether it is evaluated at this update: it has started, and it is its turn if it is lazy."""
        return not self.is_waiting(clock) and clock.updates % self.every == 0

    def at(self, clock: Clock) -> float:
        """The effective weight: number x ramp (x ``every`` for a lazy term), 0 when it is not due."""
        if not self.is_due(clock):
            return 0.0
        lazy = self.every if self.lazy_scale else 1
        return self.weight * ramp_factor(clock.step, self.start, self.ramp, self.shape) * lazy
