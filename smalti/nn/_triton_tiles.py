"""How the Triton kernels cut their work: slices of channels, tiles of rows, and the parts of a walk that is split.

The table is short, and on a GPU its entries are timed once for each kernel, width and device; where results must repeat
from process to process (``torch.use_deterministic_algorithms``) the first entry is taken untimed, since another tile
adds up in another order.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

log = logging.getLogger("smalti")

Pass = Literal["statistics", "weighted", "gradient", "largest"]

# 512 channels and the one that assign_codes adds; the gradient of more costs more products than plain chunks do.
MOST_CHANNELS = 528
# Channels of the gradient that one program holds; it computes the powers again for each such piece.
MOST_OUT = 128
# Programs that a processor of a GPU should have to choose from.
PROGRAMS = 4
PROCESSORS = {"cpu": 2}
ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Shape of a program.

    Args:
        own: rows that it owns.
        other: rows of the other side that it takes at a time.
        warps: of 32 threads.
        stages: tiles that are on their way from memory at a time.
    """

    own: int
    other: int
    warps: int
    stages: int


# In registers of a thread, as compiled for compute capability 9.0, all of these stay below 255 without spilling.
SCORES = (
    Tiles(own=64, other=32, warps=4, stages=3),
    Tiles(own=64, other=64, warps=8, stages=2),
    Tiles(own=64, other=64, warps=4, stages=3),
)
NARROW_GRADIENT = (
    Tiles(own=64, other=32, warps=4, stages=3),
    Tiles(own=64, other=64, warps=8, stages=2),
    Tiles(own=64, other=64, warps=4, stages=2),
)
WIDE_GRADIENT = (
    Tiles(own=64, other=64, warps=8, stages=2),
    Tiles(own=64, other=32, warps=4, stages=3),
    Tiles(own=32, other=32, warps=4, stages=2),
)


def part_of(channels: int) -> int:
    """Channels of a slice: 32, or 16 where that leaves fewer zeros behind the last one.

    >>> [part_of(channels) for channels in (3, 9, 17, 64, 65)]
    [16, 16, 32, 32, 16]
    """
    return 16 if -(-channels // 16) % 2 else 32


def width_of(channels: int) -> int:
    """Channels, rounded up to whole slices.

    >>> [width_of(channels) for channels in (3, 17, 65, 257)]
    [16, 32, 80, 272]
    """
    part = part_of(channels)
    return -(-channels // part) * part


def out_of(width: int) -> int:
    """Channels of the gradient that one program holds: a power of two.

    >>> [out_of(width) for width in (16, 80, 272)]
    [16, 128, 128]
    """
    return min(MOST_OUT, 1 << (width - 1).bit_length())


def candidates(kind: Pass, width: int) -> tuple[Tiles, ...]:
    """The entries of the table, the default first."""
    if kind != "gradient":
        return SCORES
    return NARROW_GRADIENT if width <= 32 else WIDE_GRADIENT


def split(owners: int, others: int, other: int, device: torch.device) -> tuple[int, int]:
    """Parts of a walk, and rows of each, so that few owners keep all processors busy.

    Args:
        owners: programs if nothing is split.
        others: rows to walk over.
        other: rows of a tile.
        device: its number of processors counts.

    Example:
        >>> split(1, 1000, 32, torch.device("cpu"))
        (8, 128)
        >>> split(100, 1000, 32, torch.device("cpu"))
        (1, 1024)
    """
    tiles = -(-others // other)
    wanted = min(max(PROGRAMS * _processors(device) // owners, 1), tiles)
    share = -(-tiles // wanted)
    return -(-tiles // share), share * other


def _processors(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return PROCESSORS["cpu"]


_fastest: dict[tuple[Pass, int, torch.device], Tiles] = {}


def chosen(kind: Pass, width: int, device: torch.device, prepare: Callable[[], Callable[[Tiles], object]]) -> Tiles:
    """The fastest tiles for a kernel, found out once; the first of the table where nothing may be timed.

    Args:
        kind: of the kernel.
        width: channels of its inputs.
        device: where it runs.
        prepare: makes what runs it once, on a problem of typical size.

    Raises:
        Exception: that of the first entry, if no entry runs.
    """
    table = candidates(kind, width)
    key = kind, width, device
    if key not in _fastest:
        if not _may_time(device):
            return table[0]
        launch = prepare()
        _fastest[key] = fastest(table, lambda tiles: _milliseconds(lambda: launch(tiles)))
        log.info("Triton kernel %s of %d channels on %s: %s", kind, width, device, _fastest[key])
    return _fastest[key]


def fastest(table: tuple[Tiles, ...], measure: Callable[[Tiles], float]) -> Tiles:
    """The entry of the smallest measure; one that fails is passed over, unless all do.

    >>> fastest(SCORES, lambda tiles: 1.0 / tiles.other).other
    64
    """
    found: dict[Tiles, float] = {}
    problem: Exception | None = None
    for tiles in table:
        try:
            found[tiles] = measure(tiles)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a compiler or a driver may raise
            problem = problem or error
    if problem is not None and not found:
        raise problem
    return min(found, key=lambda tiles: found[tiles])


def _may_time(device: torch.device) -> bool:
    if device.type != "cuda" or torch.are_deterministic_algorithms_enabled():
        return False
    return not torch.cuda.is_current_stream_capturing()


def _milliseconds(launch: Callable[[], object]) -> float:
    """Shortest of a few runs, after one that compiles."""
    launch()
    times: list[float] = []
    for _ in range(ROUNDS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        launch()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)
