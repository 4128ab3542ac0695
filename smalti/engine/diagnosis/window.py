"""What updates were between two log steps: kept as it comes, on the device, and looked at on the host at the log step.

An update costs two references: its norm and the values of its terms, which the engine stacks in any case to see whether
they are finite.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from smalti.engine.turn import Turn
from smalti.objectives.names import compares_with_data
from smalti.objectives.phases import Phase

MOST = 256  # updates whose tensors are kept before they are joined into one, still on the device


def compared_terms(phase: Phase) -> tuple[str, ...]:
    """Names of the optimised terms that compare what is made with data."""
    judged = getattr(phase.network, "judged", None)
    return tuple(
        term.name for term in phase.terms if term.role == "optimize" and compares_with_data(term.reads, judged)
    )


def fit_of(turn: Turn, terms: Sequence[str]) -> Tensor | None:
    """The sum of these terms as they are weighted, a mean over micro-batches, in double precision; None if none acted.

    It stays on the device.
    """
    seen = [report.terms[name].weighted for report in turn.reports for name in terms]
    values = [value.detach() for value in seen if value is not None]
    return torch.stack(values).double().sum() / len(turn.reports) if values else None


class Window:
    """The updates of one phase since the last log step.

    Args:
        terms: names of the terms that compare with data; none for a discriminator.
        clip: largest norm of its gradient, or None.
    """

    def __init__(self, terms: Sequence[str], clip: float | None) -> None:
        self.terms, self.clip = frozenset(f"term {name!r}" for name in terms), clip
        self._pieces: list[Tensor] = []  # of each update its values, its norm last; joined now and then
        self._updates: list[tuple[Sequence[str], int]] = []  # names of its values, micro-batches
        self._sums: dict[str, float] = {}

    def note(self, turn: Turn) -> None:
        """Keeps what an update was, without waiting for the device."""
        names = turn.suspects.terms
        if self._updates and names == self._updates[-1][0]:
            names = self._updates[-1][0]  # one list for all of them
        self._updates.append((names, len(turn.reports)))
        self._pieces += [turn.suspects.values, turn.gradient_norm]
        if len(self._pieces) > 2 * MOST:
            self._pieces = [self._joined()]

    def sums(self) -> dict[str, float]:
        """What there is so far; waits for the device."""
        if self._updates:
            numbers = self._joined().tolist()
            updates, self._pieces, self._updates = self._updates, [], []
            at, names, columns = 0, updates[0][0], self._columns(updates[0][0])
            for told, passes in updates:
                if told is not names:
                    names, columns = told, self._columns(told)
                end = at + len(told)
                self._add(numbers[end], sum(numbers[at + column] for column in columns) / passes if columns else None)
                at = end + 1
        return dict(self._sums)

    def _joined(self) -> Tensor:
        return torch.cat([piece.reshape(-1) for piece in self._pieces])

    def _columns(self, names: Sequence[str]) -> list[int]:
        return [column for column, name in enumerate(names) if name in self.terms]

    def _add(self, norm: float, fit: float | None) -> None:
        sums = self._sums
        fine = math.isfinite(norm)
        norm, clip = norm if fine else 0.0, self.clip or math.inf
        sums["updates"] = sums.get("updates", 0.0) + fine
        sums["norm_max"] = max(sums.get("norm_max", 0.0), norm)
        sums["clipped"] = sums.get("clipped", 0.0) + (norm > clip)
        sums["depth"] = sums.get("depth", 0.0) + norm / clip
        if fit is not None and math.isfinite(fit):
            sums["fits"], sums["fit"] = sums.get("fits", 0.0) + 1.0, sums.get("fit", 0.0) + fit
            sums["fit_max"] = max(sums.get("fit_max", -math.inf), fit)

    def restore(self, sums: Mapping[str, float]) -> None:
        """Goes on from what ``sums`` gave."""
        self._pieces, self._updates, self._sums = [], [], dict(sums)

    def numbers(self) -> dict[str, float]:
        """What is logged of the updates since the last call; waits for the device."""
        sums = self.sums()
        self._sums = {}
        found: dict[str, float] = {}
        if sums.get("fits", 0.0) > 0:
            found |= {"fit": sums["fit"] / sums["fits"], "fit_max": sums["fit_max"]}
        updates = sums.get("updates", 0.0)
        if updates > 0:
            found["gradient_norm_max"] = sums["norm_max"]
            if self.clip is not None:
                found |= {"clip_active": sums["clipped"] / updates, "clip_depth": sums["depth"] / updates}
        return found
