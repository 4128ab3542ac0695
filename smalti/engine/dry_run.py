"""A dry run: one step, and how large everything was."""

import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from smalti.engine.runtime import Runtime
from smalti.engine.turn import Player

MEBI = 2**20


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network or a part of it: its place, its class, parameters, those that are trained, and bytes of weights."""

    place: str
    kind: str
    parameters: int
    trained: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What one step cost.

    Args:
        rows: networks with their parts.
        seconds: of the step, the first one, which is slower than those that follow.
        peak_bytes: most memory in use: of the accelerator, or of the whole process on a CPU.
        device: where it ran.
    """

    rows: tuple[Row, ...]
    seconds: float
    peak_bytes: int
    device: str

    def table(self) -> str:
        """The rows as aligned text, with time and memory below."""
        head = ("network", "class", "parameters", "trained", "MiB")
        body = [
            (row.place, row.kind, f"{row.parameters:,}", f"{row.trained:,}", f"{row.bytes / MEBI:.1f}")
            for row in self.rows
        ]
        widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(width) if column < 2 else cell.rjust(width) for column, (cell, width) in enumerate(pairs)
            )
            for pairs in (list(zip(line, widths, strict=True)) for line in (head, *body))
        ]
        cost = f"one step on {self.device}: {self.seconds:.2f} s, peak memory {self.peak_bytes / MEBI:.0f} MiB"
        return "\n".join([*(line.rstrip() for line in lines), cost])


def account(players: Mapping[str, Player], runtime: Runtime, step: Callable[[], object]) -> DryRun:
    """Runs one step and measures it."""
    cuda = runtime.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step()
    if cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    rows = [row for name, player in players.items() for row in _rows(name, player.phase.network)]
    peak = torch.cuda.max_memory_allocated() if cuda else _resident_peak()
    return DryRun(rows=tuple(rows), seconds=seconds, peak_bytes=peak, device=str(runtime.device))


def _rows(name: str, network: nn.Module) -> list[Row]:
    children = [(f"{name}.{child}", part) for child, part in network.named_children()]
    return [_row(place, part) for place, part in ((name, network), *children)]


def _row(place: str, module: nn.Module) -> Row:
    parameters = list(module.parameters())
    return Row(
        place=place,
        kind=type(module).__name__,
        parameters=sum(p.numel() for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        bytes=sum(p.numel() * p.element_size() for p in parameters),
    )


def _resident_peak() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
