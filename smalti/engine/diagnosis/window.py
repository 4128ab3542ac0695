"""What updates were between two log steps, kept on the device: nothing waits for it before the log step."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from smalti.engine.turn import Turn
from smalti.objectives.names import compares_with_data
from smalti.objectives.phases import Phase

MOST = 64  # updates whose scalars are kept before they are added up, still on the device
LARGEST = frozenset({"fit_max", "norm_max"})


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
        self.terms, self.clip = tuple(terms), clip
        self._fits: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._sums: dict[str, Tensor | float] = {}

    def note(self, turn: Turn) -> None:
        """Keeps what an update was."""
        self._norms.append(turn.gradient_norm)
        fit = fit_of(turn, self.terms)
        if fit is not None:
            self._fits.append(fit)
        if len(self._norms) >= MOST:
            self._fold()

    def _fold(self) -> None:
        if not self._norms:
            return
        norms = torch.stack(self._norms).double()
        fits = torch.stack(self._fits) if self._fits else norms.new_zeros(0)
        self._norms, self._fits = [], []
        fine, known = torch.isfinite(norms), torch.isfinite(fits)
        norms, fits = torch.where(fine, norms, 0.0), torch.where(known, fits, 0.0)
        clip = self.clip or torch.inf
        found: dict[str, Tensor | float] = {
            "updates": fine.sum().double(),
            "norm_max": norms.amax(),
            "clipped": (norms > clip).sum().double(),
            "depth": (norms / clip).sum(),
        }
        if len(fits):
            largest = torch.where(known, fits, -torch.inf).amax()
            found |= {"fits": known.sum().double(), "fit": fits.sum(), "fit_max": largest}
        for name, value in found.items():
            before = self._sums.get(name)
            self._sums[name] = value if before is None else _joined(name, before, value)

    def sums(self) -> dict[str, Tensor | float]:
        """What there is so far, on the device."""
        self._fold()
        return dict(self._sums)

    def restore(self, sums: Mapping[str, float]) -> None:
        """Goes on from what ``sums`` gave."""
        self._fits, self._norms, self._sums = [], [], dict(sums)

    def numbers(self, sums: Mapping[str, float]) -> dict[str, float]:
        """What is logged of ``sums``, read from the device."""
        found: dict[str, float] = {}
        if sums.get("fits", 0.0) > 0:
            found |= {"fit": sums["fit"] / sums["fits"], "fit_max": sums["fit_max"]}
        updates = sums.get("updates", 0.0)
        if updates > 0:
            found["gradient_norm_max"] = sums["norm_max"]
            if self.clip is not None:
                found |= {"clip_active": sums["clipped"] / updates, "clip_depth": sums["depth"] / updates}
        return found


def _joined(name: str, before: Tensor | float, value: Tensor | float) -> Tensor | float:
    if name not in LARGEST:
        return before + value
    after: Any = torch.as_tensor(value)
    return torch.maximum(torch.as_tensor(before, dtype=after.dtype, device=after.device), after)
