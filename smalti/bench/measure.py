"""Measuring side by side: variants in turn in one process, medians, memory in a pass of its own."""

import contextlib
import ctypes
import gc
import importlib.util
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from smalti.registry import UserError
from smalti.writing import to_json

if TYPE_CHECKING:
    import torch

MEBI = 2**20


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one variant took: median seconds, and the memory of one run in MiB where it is known."""

    seconds: float
    peak_mib: float | None = None
    saved_mib: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """``name`` took ``seconds``; ``against`` took ``ratio`` times as long."""

    name: str
    against: str
    seconds: float
    ratio: float
    peak_mib: float | None = None
    saved_mib: float | None = None


def interleave(
    variants: Mapping[str, Callable[[], object]], repeats: int, device: "torch.device", *, memory: bool = True
) -> dict[str, Measured]:
    """Runs every variant once to warm up, then all in turn ``repeats`` times.

    On a CPU, seconds are processor time of this process on one thread; on CUDA they lie between two events.
    """
    import torch

    torch.set_num_threads(1)
    found = {}
    for name, run in variants.items():
        found[name] = _memory(run, device) if memory else (None, None)
        run()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(repeats):
        for name, run in variants.items():
            times[name].append(seconds_of(run, device))
    return {
        name: Measured(seconds=statistics.median(times[name]), peak_mib=found[name][0], saved_mib=found[name][1])
        for name in variants
    }


def seconds_of(run: Callable[[], object], device: "torch.device") -> float:
    """What one run takes: processor time of this process on a CPU, the time between two events on CUDA."""
    import torch

    if device.type != "cuda":
        began = time.process_time()
        run()
        return time.process_time() - began
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / 1000.0


def _memory(run: Callable[[], object], device: "torch.device") -> tuple[float | None, float]:
    """Peak beyond what was there before, and what autograd saved, of one run; MiB."""
    import torch

    saved: dict[int, int] = {}

    def note(tensor: "torch.Tensor") -> "torch.Tensor":
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    watch = _CudaPeak() if device.type == "cuda" else _ResidentPeak()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        peak = watch.of(run)
    return peak, sum(saved.values()) / MEBI


class _CudaPeak:
    def of(self, run: Callable[[], object]) -> float:
        """Runs it; the largest allocation beyond what was allocated before, in MiB."""
        import torch

        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return float(torch.cuda.max_memory_allocated() - before) / MEBI


class _ResidentPeak:
    """Resident memory, sampled every millisecond by a thread."""

    def of(self, run: Callable[[], object]) -> float | None:
        """Runs it; growth of the process in MiB, None where the system does not say."""
        if not Path("/proc/self/statm").exists():
            run()
            return None
        _give_back()
        done, pages = threading.Event(), [_resident()]

        def sample() -> None:
            while not done.wait(0.001):
                pages.append(_resident())

        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        try:
            run()
            pages.append(_resident())
        finally:
            done.set()
            thread.join()
        return (max(pages) - pages[0]) / MEBI


def _give_back() -> None:
    """Returns freed memory to the system where glibc allows it: what earlier variants left would hide a growth."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _resident() -> int:
    import resource

    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def compare(name: str, ours: Measured, others: Mapping[str, Measured]) -> list[Row]:
    """A row for each of the others."""
    return [
        Row(
            name=name,
            against=other,
            seconds=ours.seconds,
            ratio=measured.seconds / max(ours.seconds, 1e-9),
            peak_mib=ours.peak_mib,
            saved_mib=ours.saved_mib,
        )
        for other, measured in others.items()
    ]


def memory_note(found: Mapping[str, Measured], names: Iterable[str]) -> str:
    """Peak and saved memory of what is compared against."""
    texts = [f"{name} {_number(found[name].peak_mib)} / {_number(found[name].saved_mib)}" for name in names]
    return f"peak / saved MiB: {', '.join(texts)}"


def show(rows: list[Row], notes: list[str], as_json: bool) -> None:
    """Prints rows as a table with notes below, or as JSON with the notes on stderr."""
    import typer

    if as_json:
        typer.echo(to_json([asdict(row) for row in rows]))
    else:
        table = [("name", "against", "seconds", "ratio", "peak MiB", "saved MiB")]
        table += [
            (
                row.name,
                row.against,
                f"{row.seconds:.4f}",
                f"{row.ratio:.2f}",
                _number(row.peak_mib),
                _number(row.saved_mib),
            )
            for row in rows
        ]
        widths = [max(len(line[column]) for line in table) for column in range(6)]
        for line in table:
            cells = (
                cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            typer.echo("  ".join(cells).rstrip())
    for note in notes:
        typer.echo(note, err=as_json)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def textbook(name: str) -> ModuleType:
    """A module of ``benchmarks/`` of the source tree, or its copy in an installed package; see ``hatch_build.py``."""
    here = Path(__file__).parent
    kept = [folder / f"{name}.py" for folder in (here.parents[1] / "benchmarks", here / "textbook")]
    path = next((path for path in kept if path.is_file()), None)
    spec = importlib.util.spec_from_file_location(f"smalti_benchmarks_{name}", path) if path else None
    if spec is None or spec.loader is None:
        raise UserError(f"{name}.py, the textbook form to compare with, is not in this installation of smalti")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
