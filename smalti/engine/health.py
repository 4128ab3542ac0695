"""Steps whose loss or gradient is not finite: undone, counted, named, and not tolerated for ever.

On a GPU nothing here waits for the device between two log steps: what happened is kept there and read later.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from smalti.extractors import Extractor
from smalti.nn.starting import StartsOnData
from smalti.objectives.report import LossReport
from smalti.outputs import BottleneckOutput

ELSEWHERE = "something on another rank"


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """What may have made a step bad.

    Args:
        terms: names of latents, of the evaluated terms, micro-batch after micro-batch, and of the total.
        values: largest magnitudes of the latents and raw values of the others, with shape (n,).
        layers: names of the parameters with a gradient.
        norms: norms of those gradients, with shape (m,).
    """

    terms: Sequence[str]
    values: Tensor
    layers: Sequence[str]
    norms: Tensor

    @classmethod
    def of(cls, reports: Sequence[LossReport], gradients: Mapping[str, Tensor]) -> "Suspects":
        """Looks at the reports of an update and its gradients, before clipping."""
        norms = torch.stack([norm.reshape(()) for norm in torch._foreach_norm(list(gradients.values()))])
        terms, values = [], []
        for report in reports:
            named: dict[str, Tensor | None] = {**_latents(report.output)}
            named |= {f"term {name!r}": term.weighted for name, term in report.terms.items()} | {"total": report.total}
            for name, value in named.items():
                if value is not None:
                    terms.append(name)
                    values.append(value.detach().to(norms).reshape(()))
        return cls(terms=terms, values=torch.stack(values), layers=list(gradients), norms=norms)

    def all_finite(self) -> Tensor:
        """Whether every loss and every gradient is finite, a boolean scalar on the device."""
        return torch.isfinite(self.values).all() & torch.isfinite(self.norms).all()

    def guilty(self) -> str:
        """The first latent or term, else the first layer's gradient, that is not finite; waits for the device."""
        for name, fine in zip(self.terms, torch.isfinite(self.values).tolist(), strict=True):
            if not fine:
                return name
        for name, fine in zip(self.layers, torch.isfinite(self.norms).tolist(), strict=True):
            if not fine:
                return f"gradient of {name}"
        return ELSEWHERE


def _latents(output: Any) -> dict[str, Tensor]:
    """The largest magnitude of what was to be stored, not finite if anything of it is not; scalars by name."""
    bottleneck = getattr(output, "bottleneck", None)
    if not isinstance(bottleneck, BottleneckOutput):
        return {}
    latents = {f"latent of codebook {name!r}": record.z for name, record in bottleneck.codebooks.items()}
    latents = latents or {"latent": bottleneck.latent}
    return {name: latent.detach().abs().amax() for name, latent in latents.items()}


@dataclass(frozen=True, kw_only=True)
class Incident:
    """A skipped update: at which step, of whom, and why."""

    step: int
    phase: str
    guilty: str


class Health:
    """Remembers updates on the device until they are read."""

    def __init__(self) -> None:
        self.consecutive: dict[str, int] = {}
        self.worst = 0
        self._pending: list[tuple[int, str, Tensor, Suspects]] = []

    def note(self, step: int, phase: str, bad: Tensor, suspects: Suspects) -> None:
        """Keeps what an update was, without waiting for the device."""
        self._pending.append((step, phase, bad, suspects))

    def read(self) -> list[Incident]:
        """The skipped updates since the last reading; ``worst`` is then the longest row of one phase."""
        if not self._pending:
            return []
        flags = torch.stack([bad for _, _, bad, _ in self._pending]).tolist()
        incidents = []
        self.worst = 0
        for (step, phase, _, suspects), bad in zip(self._pending, flags, strict=True):
            self.consecutive[phase] = self.consecutive.get(phase, 0) + 1 if bad else 0
            self.worst = max(self.worst, self.consecutive[phase])
            if bad:
                incidents.append(Incident(step=step, phase=phase, guilty=suspects.guilty()))
        self._pending.clear()
        return incidents


def _within_extractors(module: nn.Module) -> Iterator[nn.Module]:
    """The modules of frozen networks."""
    for part in module.modules():
        if isinstance(part, Extractor):
            yield from part.modules()


class Guard:
    """Copies of what a bad step would spoil: the buffers of all phases, and parameters that an update writes itself.

    The forward pass of a bad step may already have fed NaN to a running average. Weights of frozen networks are buffers
    too, but no step changes them: they are not copied. What a module of ``StartsOnData`` was set to by its first
    batch is no such thing: it stays, and is not set twice.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        frozen = {id(part) for module in modules for part in _within_extractors(module)}
        parts = {id(part): part for module in modules for part in module.modules() if id(part) not in frozen}
        self.owners = list(parts.values())
        self.parameters = list({id(p): p for module in modules for p in module.parameters()}.values())
        self.written: dict[int, nn.Parameter] = {}
        self._buffers: list[tuple[nn.Module, str, Tensor]] = []
        self._copies: list[tuple[nn.Parameter, Tensor]] = []

    @torch.no_grad()
    def take(self) -> None:
        """Copies the buffers as they are now."""
        places = [(owner, name) for owner in self.owners for name in owner._buffers if owner._buffers[name] is not None]
        buffers = [owner.get_buffer(name) for owner, name in places]
        copies = [torch.empty_like(buffer) for buffer in buffers]
        if copies:
            torch._foreach_copy_(copies, buffers)
        self._buffers = [(owner, name, copy) for (owner, name), copy in zip(places, copies, strict=True)]

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Notes which parameters are written to within; those known to be are copied first."""
        self._keep_starts()
        self._copies = [(parameter, parameter.detach().clone()) for parameter in self.written.values()]
        before = [parameter._version for parameter in self.parameters]
        yield
        for parameter, version in zip(self.parameters, before, strict=True):
            if parameter._version != version:
                self.written[id(parameter)] = parameter

    @torch.no_grad()
    def _keep_starts(self) -> None:
        """What modules that started since ``take`` are now is what they go back to."""
        for part in (owner for owner in self.owners if isinstance(owner, StartsOnData)):
            copies = {name: copy for owner, name, copy in self._buffers if owner is part}
            if "initialized" in copies:
                started = part.has_started_since(copies["initialized"])
                for name, copy in copies.items():
                    copy.copy_(torch.where(started, part.get_buffer(name), copy))

    @torch.no_grad()
    def restore(self) -> None:
        """Puts the copies back."""
        self._keep_starts()
        for owner, name, copy in self._buffers:
            current = owner._buffers[name]
            if current is not None and current.shape == copy.shape:
                current.copy_(copy)
            else:
                owner._buffers[name] = copy

    @torch.no_grad()
    def restore_where(self, bad: Tensor) -> None:
        """Puts the copies back if ``bad`` is not zero, decided on the device."""
        spoilt = bad > 0
        for owner, name, copy in self._buffers:
            current = owner._buffers[name]
            if current is not None and current.shape == copy.shape:
                current.copy_(torch.where(spoilt, copy, current))
        for parameter, copy in self._copies:
            parameter.copy_(torch.where(spoilt, copy, parameter))
