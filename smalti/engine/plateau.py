"""Starts that a run finds by itself: when the terms that compare with data stop getting better.

All ranks decide alike, from the same mean, at the end of a window; in between nothing waits for the device.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from smalti.engine.diagnosis.window import compared_terms, fit_of
from smalti.engine.runtime import Runtime
from smalti.engine.settings import GENERATOR
from smalti.engine.state import TrainState
from smalti.engine.turn import Turn
from smalti.objectives.phases import Phase
from smalti.objectives.weight import Plateau


class Plateaus:
    """Watches for the plateaus that terms wait for.

    Args:
        phases: name -> phase.
        state: where it is kept what was reached, and the means of the last windows.
        runtime: ranks.
    """

    def __init__(self, phases: Mapping[str, Phase], state: TrainState, runtime: Runtime) -> None:
        self.state, self.runtime = state, runtime
        self.terms = compared_terms(phases[GENERATOR]) if GENERATOR in phases else ()
        waiting: dict[str, tuple[Plateau, list[str]]] = {}
        for phase, of in phases.items():
            for term in of.terms:
                if isinstance(term.start, Plateau):
                    waiting.setdefault(term.start.key, (term.start, []))[1].append(f"{phase}.{term.name}")
        self.waiting = waiting
        self._sums: dict[str, Tensor] = {}  # key -> sum and number of values since the last window, on the device

    def note(self, turn: Turn) -> None:
        """Adds an update of the generator to the windows that are open."""
        fit = fit_of(turn, self.terms) if self.waiting and turn.phase == GENERATOR else None
        if fit is None:
            return
        fine = torch.isfinite(fit)
        one = torch.stack([torch.where(fine, fit, 0.0), fine.double()])
        for key in self.waiting.keys() - self.state.started.keys():
            self._sums[key] = self._sums[key].to(one.device) + one if key in self._sums else one

    def decide(self) -> list[str]:
        """What starts after the present step: a sentence each, equal on all ranks."""
        told = []
        step = self.state.step
        for key, (plateau, names) in self.waiting.items():
            if key in self.state.started or (step % plateau.window and step != plateau.latest):
                continue
            total, count = (sum(one) for one in zip(*self.runtime.gather(self._read(key)), strict=True))
            mean = total / count if count else math.inf
            self._sums.pop(key, None)
            if plateau.is_reached(step, mean, self.state.plateaus.get(key)):
                self.state.started[key] = step
                told.append(f"a plateau: {', '.join(names)} start at step {step}")
            elif math.isfinite(mean):
                self.state.plateaus[key] = mean
        return told

    def _read(self, key: str) -> list[float]:
        values: list[float] = self._sums[key].tolist() if key in self._sums else [0.0, 0.0]
        return values

    # What travels with a checkpoint.

    def pending(self) -> dict[str, Any]:
        """What this rank has summed since the last window; waits for the device."""
        return {key: self._read(key) for key in self._sums}

    def restore(self, pending: Mapping[str, Any]) -> None:
        """Goes on from what ``pending`` gave."""
        self._sums = {key: torch.tensor(values, dtype=torch.float64) for key, values in pending.items()}
