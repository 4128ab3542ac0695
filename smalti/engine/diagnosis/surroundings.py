"""What a diagnosis sees beside the networks: labels as they are drawn, teachers as they speak, waiting, memory."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smalti.objectives.names import LABEL
from smalti.objectives.phases import Phase

MIB = 2**20
MOST = 64  # batches whose labels are kept before they are looked at
STATM = "/proc/self/statm"


def is_told_labels(phase: Phase) -> bool:
    """Whether labels matter to a phase: its network is told them, or a term asks for them."""
    asked = any(f"batch.{LABEL}" in term.reads for term in phase.terms)
    return asked or bool(getattr(phase.network, "num_classes", 0))


class Labels:
    """Least and largest label since the last log step, and how many were seen; on the host, where labels are."""

    def __init__(self) -> None:
        self.seen, self.least, self.largest = 0, math.inf, -math.inf
        self._drawn: list[Tensor] = []

    def note(self, batches: Sequence[Mapping[str, Any]]) -> None:
        """Keeps the labels of batches (B,), if they have any."""
        for batch in batches:
            labels = batch.get(LABEL)
            if isinstance(labels, Tensor) and labels.numel() and labels.device.type == "cpu":
                self._drawn.append(labels)
        if len(self._drawn) >= MOST:
            self._look()

    def _look(self) -> None:
        if self._drawn:
            drawn, self._drawn = torch.cat([labels.flatten() for labels in self._drawn]), []
            least, largest = torch.aminmax(drawn)
            self.seen += len(drawn)
            self.least, self.largest = min(self.least, least.item()), max(self.largest, largest.item())

    def numbers(self) -> dict[str, float]:
        """``label/...``, if there are labels; least and largest start anew."""
        self._look()
        if self.least > self.largest:
            return {}
        least, largest, self.least, self.largest = self.least, self.largest, math.inf, -math.inf
        return {"label/min": float(least), "label/max": float(largest), "label/seen": float(self.seen)}

    def pending(self) -> list[float]:
        """What was noted since the last log step, as plain values."""
        self._look()
        return [self.seen, self.least, self.largest]

    def restore(self, values: Sequence[float]) -> None:
        """Goes on from what ``pending`` gave."""
        self._drawn, self.seen = [], int(values[0])
        self.least, self.largest = values[1], values[2]


class Teachers:
    """How much the features of teachers differ within a batch, measured while ``looking``.

    Args:
        teachers: name -> frozen network.
    """

    def __init__(self, teachers: Mapping[str, nn.Module]) -> None:
        self.looking = False
        self._seen: dict[str, Tensor] = {}
        for name, teacher in teachers.items():
            teacher.register_forward_hook(self._hook(name))

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, inputs: Any, output: Any) -> None:
            seen = output[-1] if isinstance(output, tuple) and output else output  # the deepest features
            if self.looking and isinstance(seen, Tensor) and seen.ndim > 1 and len(seen) > 1:
                with torch.no_grad():
                    features = seen.detach().flatten(1).float()
                    size = features.square().mean().sqrt().clamp_min(1e-30)
                    self._seen[name] = features.std(dim=0).square().mean().sqrt() / size

        return look

    def numbers(self) -> dict[str, Tensor]:
        """``teacher/<name>/variation``, on the device."""
        found, self._seen = {f"teacher/{name}/variation": value for name, value in self._seen.items()}, {}
        return found


class Clockwork:
    """The share of time that goes to waiting for data."""

    def __init__(self) -> None:
        self._since, self._waited = time.perf_counter(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within, the run waits for data."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - began

    def share(self) -> float:
        """Of the time since the last reading."""
        now = time.perf_counter()
        found = self._waited / max(now - self._since, 1e-9)
        self._since, self._waited = now, 0.0
        return min(found, 1.0)


def memory(device: torch.device) -> dict[str, float]:
    """``memory`` of this process and ``device_memory`` that tensors hold, in MiB; what is not known is left out."""
    found: dict[str, float] = {}
    try:
        with open(STATM, "rb", buffering=0) as file:
            found["memory"] = int(file.read().split()[1]) * 4096 / MIB
    except (OSError, ValueError, IndexError):
        try:
            import resource

            found["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        except ImportError:  # Windows
            pass
    if device.type == "cuda":
        found["device_memory"] = torch.cuda.memory_allocated(device) / MIB
    return found
