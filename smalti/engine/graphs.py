"""CUDA graphs over an update: its passes are recorded once and replayed, one launch of the host in place of hundreds.

Recorded are forward and backward pass, gradient norms, the verdict on them and clipping. The optimizer, whose rate
changes with every step, what a phase updates itself, and all that is drawn on the host stay outside. The kernels of a
replay are those of the eager passes, in their order, and random numbers are seeded before each: results are equal bit
for bit where the kernels are deterministic. What is recorded holds as long as shapes, weights of terms and addresses of
parameters and buffers stay what they are; otherwise the update runs as ever, and is recorded again.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from smalti.engine.settings import EngineSettings, PhaseOptimizer
from smalti.objectives.phases import Phase
from smalti.objectives.weight import Clock

log = logging.getLogger("smalti")
T = TypeVar("T")
Inputs = dict[str, Tensor]

WARM_UPS = 3  # updates of one kind before it is recorded: kernels are compiled and chosen in them
MOST_RECORDINGS = 8  # an update that changes more often is not worth recording


def why_not(
    phase: Phase, settings: EngineSettings, spec: PhaseOptimizer, device: torch.device, processes: int
) -> str | None:
    """Why the updates of a phase are never recorded; None if they may be. Looks at nothing but its arguments.

    Args:
        phase: whose updates they are.
        settings: of the run.
        spec: how the phase steps.
        device: of the run.
        processes: of the run.
    """
    if settings.graphs == "off":
        return "engine.graphs is off"
    if device.type != "cuda":
        return f"no CUDA: the run is on {device.type}"
    if processes > 1:
        return f"{processes} processes reduce gradients during the backward pass"
    if settings.accumulate > 1:
        return f"accumulate={settings.accumulate}: random numbers are seeded between micro-batches"
    for term in phase.terms:
        if term.every > 1:
            return f"the term {term.name!r} is lazy, every={term.every}"
        if "step" in term.reads:
            return f"the term {term.name!r} reads the step"
    for module in _modules(phase):
        reason = getattr(module, "forbids_graphs", None)
        if isinstance(reason, str):
            return f"{type(module).__name__}: {reason}"
    return None


def kind_of(phase: Phase, clock: Clock, inputs: Mapping[str, Any]) -> Hashable | None:
    """What updates that can share a recording have in common; None for one that holds more than tensors.

    Args:
        phase: who moves.
        clock: when it is: which terms act, and with what weight.
        inputs: name -> column of the batch.
    """
    if not all(isinstance(value, Tensor) for value in inputs.values()):
        return None
    columns = ((name, tuple(v.shape), v.stride(), v.dtype, v.device) for name, v in sorted(inputs.items()))
    terms = ((term.name, term.is_waiting(clock), term.at(clock)) for term in phase.terms)
    return tuple(columns), tuple(terms), tuple(module.training for module in _modules(phase))


def _modules(phase: Phase) -> Iterator[nn.Module]:
    """Of the phase and of the networks that it only refers to."""
    yield from phase.modules()
    for other in phase.others:
        yield from other.modules()


class Recorder(Protocol):
    """What records work and replays it."""

    def warm_up(self, run: Callable[[], T]) -> T:
        """Runs it where it will be recorded."""

    def record(self, run: Callable[[], T]) -> "tuple[Callable[[], None], T]":
        """Records it, executing nothing on the device: what replays it, and its results, which are not there yet."""


class CudaRecorder:
    """Records on a stream of its own, where the updates before a recording run too, as torch asks for."""

    def __init__(self) -> None:
        self.stream: torch.cuda.Stream | None = None

    def warm_up(self, run: Callable[[], T]) -> T:
        """Runs it on the stream, between what was asked for before and what will be after."""
        if self.stream is None:
            self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            found = run()
        torch.cuda.current_stream().wait_stream(self.stream)
        return found

    def record(self, run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        """As a CUDA graph; only what this thread does may spoil it, not the data's threads."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            found = run()
        return graph.replay, found


class Replayer(Generic[T]):
    """Runs updates, and replays them once they are recorded.

    Args:
        recorder: what records.
        addresses: where all that an update reads and that is no input lies.
        reason: why nothing is recorded, or None.
        name: of the phase, for the log.
    """

    def __init__(
        self, recorder: Recorder, addresses: Callable[[], tuple[int, ...]], reason: str | None, name: str = ""
    ) -> None:
        self.recorder, self.addresses, self.reason, self.name = recorder, addresses, reason, name
        self.recordings = self.replays = 0
        self._kind: Hashable = None
        self._seen = 0
        self._inputs: Inputs = {}
        self._places: tuple[int, ...] = ()
        self._replay: Callable[[], None] | None = None
        self._found: T | None = None

    def run(
        self, kind: Hashable | None, inputs: Inputs, begin: Callable[[], None], work: Callable[[Inputs], T]
    ) -> tuple[T, bool]:
        """What ``work`` makes of the inputs, and whether that was replayed: then the next replay overwrites it.

        Args:
            kind: as of :func:`kind_of`.
            inputs: name -> tensor.
            begin: what must come before each run and cannot be recorded, such as seeding.
            work: the passes.
        """
        if self.reason is not None or kind is None:
            begin()
            return work(inputs), False
        if kind != self._kind or (self._replay is not None and self.addresses() != self._places):
            self._forget(kind)
        if self._replay is None and self._seen < WARM_UPS:
            self._seen += 1
            begin()
            return self.recorder.warm_up(lambda: work(inputs)), False
        if self._replay is None and not self._record(inputs, begin, work):
            begin()
            return work(inputs), False
        assert self._replay is not None  # for the type checker
        for name, value in inputs.items():
            self._inputs[name].copy_(value)
        begin()
        self._replay()
        self.replays += 1
        return self._found, True  # type: ignore[return-value]

    def _record(self, inputs: Inputs, begin: Callable[[], None], work: Callable[[Inputs], T]) -> bool:
        """Whether it could be recorded."""
        if self.recordings >= MOST_RECORDINGS:
            self._give_up(f"it changed after each of {self.recordings} recordings")
            return False
        self._inputs = {name: value.clone() for name, value in inputs.items()}
        begin()
        try:
            self._replay, self._found = self.recorder.record(lambda: work(self._inputs))
        except Exception as error:  # whatever a driver forbids while it records
            first = [*str(error).strip().splitlines(), ""][0]
            self._give_up(f"{type(error).__name__}: {first}")
            return False
        self._places = self.addresses()
        self.recordings += 1
        return True

    def _give_up(self, reason: str) -> None:
        self._forget(None)
        self.reason = reason
        log.warning("no CUDA graphs for the phase %s from here on: %s", self.name, reason)

    def _forget(self, kind: Hashable) -> None:
        self._kind, self._seen = kind, 0
        self._inputs, self._places, self._replay, self._found = {}, (), None, None
