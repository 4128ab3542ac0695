"""Soft assignment and code search by the Triton kernels: nothing of size N x K ever leaves a processor of the GPU.

Needs ``triton``; with ``TRITON_INTERPRET=1`` it runs on a CPU, for tests.
"""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from smalti.nn import _triton_kernels as kernels
from smalti.nn._triton_tiles import Pass, Tiles, chosen, out_of, part_of, split, width_of

LOG2E, LN2 = math.log2(math.e), math.log(2.0)
LEAST = -96.0
# How products are computed: float32 on the ordinary units of a GPU, or parts of each number on its matrix units.
# Relative error of the gradient of the codes, emulated on a CPU (N 256, K 2048, d 8, temperature 0.01): ``ieee``
# 7.5e-6, ``bf16x6`` 5.6e-6, ``tf32x3`` 1.4e-5; ``bf16x3``, at 2.3e-4, is not exact enough. What they gain was not
# measured, so the default is the plain one. ``bf16x6`` asks for a Triton that has it.
PRECISION: Literal["ieee", "tf32x3", "bf16x6"] = "ieee"
# The problem on which tiles are timed: rows, codes.
TYPICAL = (8192, 4096)


def forward(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Statistics of softmax(queries keys^T) in float32.

    Args:
        queries: with shape (G, N, d).
        keys: with shape (G, K, d).

    Returns:
        index int64, m, l, entropy in nats, each (G, N), and the sum of p over the rows (G, K).
    """
    with _on(queries.device):
        u, v = _padded(queries), _padded(keys)
        index, maximum, sums, moments = _statistics(u, v, _tuned("statistics", u))
        total = _weighted(u, v, maximum, sums.reciprocal(), False, _tuned("weighted", u))
        log_sum = sums.log2()
        return index, maximum, log_sum, (LN2 * (log_sum - moments / sums)).clamp_(min=0), total


def backward(
    saved: tuple[Tensor, ...], grad_log: Tensor, grad_entropy: Tensor, grad_mean: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the queries (G, N, d) and the keys (G, K, d).

    Args:
        saved: queries (G, N, d), keys (G, K, d), m, l and entropy, each (G, N).
        grad_log: gradient of the log-partition, (G, N).
        grad_entropy: gradient of the entropy, (G, N).
        grad_mean: gradient of the mean probability, divided by N, (G, K).
    """
    queries, keys, maximum, log_sum, entropy = saved
    with _on(queries.device):
        u, v = _padded(queries), _padded(keys)
        slope = -LN2 * grad_entropy
        inverse = log_sum.neg().exp2()
        grad_mean = grad_mean.contiguous()
        cross = _weighted(u, v, maximum, grad_mean, True, _tuned("weighted", u))
        constant = grad_log - grad_entropy * entropy - slope * log_sum - inverse * cross
        rows = (maximum, inverse, slope.contiguous(), constant.contiguous())
        tiles = _tuned("gradient", u)
        grad_u, grad_v = (_gradient(u, v, rows, grad_mean, of_rows, tiles) for of_rows in (True, False))
    return grad_u[..., : queries.shape[-1]], grad_v[..., : keys.shape[-1]]


def largest(z: Tensor, rows: Tensor, offset: Tensor) -> Tensor:
    """Position of the largest z.r + offset, the lowest of equals, int64 with shape (N,).

    Args:
        z: float32 with shape (N, d).
        rows: r with shape (K, d).
        offset: with shape (K,).
    """
    with _on(z.device):
        u, v = _padded(z[None]), _padded(rows[None])
        return _largest(u, v, offset[None].contiguous(), _tuned("largest", u))[0]


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever device its tensors are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _padded(value: Tensor) -> Tensor:
    """(G, n, d) with zeros behind d up to whole slices."""
    channels = value.shape[-1]
    return F.pad(value, (0, width_of(channels) - channels)).contiguous()


def _tuned(kind: Pass, u: Tensor) -> Tiles:
    """Tiles for one kernel at the width of u."""
    width, device = u.shape[-1], u.device

    def prepare() -> Callable[[Tiles], object]:
        few, many = (torch.full((1, size, width), 1.0 / width, device=device) for size in TYPICAL)
        row, code = (torch.ones(1, size, device=device) for size in TYPICAL)
        launches: dict[Pass, Callable[[Tiles], object]] = {
            "statistics": lambda tiles: _statistics(few, many, tiles),
            "weighted": lambda tiles: _weighted(few, many, row, code, True, tiles),
            "gradient": lambda tiles: _gradient(few, many, (row, row, row, row), code, True, tiles),
            "largest": lambda tiles: _largest(few, many, code, tiles),
        }
        return launches[kind]

    return chosen(kind, width, device, prepare)


class _Cut:
    """Grid and sizes of a launch whose programs own rows of ``mine`` and walk over ``theirs``, both (G, n, width)."""

    def __init__(self, mine: Tensor, theirs: Tensor, tiles: Tiles, pieces: int = 1) -> None:
        groups, count, width = mine.shape
        owners = -(-count // tiles.own)
        self.parts, self.share = split(owners * groups * pieces, theirs.shape[1], tiles.other, mine.device)
        self.grid = (owners, self.parts * pieces, groups)
        self.lead = (self.parts, groups, count)
        self.constants = {
            "width": width, "part": part_of(width), "own": tiles.own, "other": tiles.other, "precision": PRECISION,
            # Contraction is named because Triton means to change its default, and warns of that.
            "num_warps": tiles.warps, "num_stages": tiles.stages, "enable_fp_fusion": True,
        }  # fmt: skip


def _statistics(u: Tensor, v: Tensor, tiles: Tiles) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Index, m, sum of p~ and of p~ y of each row, each (G, N)."""
    cut = _Cut(u, v, tiles)
    index = torch.empty(cut.lead, dtype=torch.int64, device=u.device)
    maximum, sums, moments = (u.new_empty(cut.lead) for _ in range(3))
    sizes = (u.shape[1], v.shape[1], cut.share, LOG2E, LEAST)
    kernels.statistics[cut.grid](u, v, index, maximum, sums, moments, *sizes, **cut.constants)
    if cut.parts == 1:
        return index[0], maximum[0], sums[0], moments[0]
    best = maximum.argmax(dim=0, keepdim=True)  # the first of equals
    top = maximum.gather(0, best)
    shift = (maximum - top).clamp_(min=LEAST)
    scale = shift.exp2()
    moments = (scale * (moments + shift * sums)).sum(dim=0)
    return index.gather(0, best)[0], top[0], (scale * sums).sum(dim=0), moments


def _weighted(u: Tensor, v: Tensor, maximum: Tensor, weight: Tensor, of_rows: bool, tiles: Tiles) -> Tensor:
    """Sum of p~ weight over the codes (G, N), or over the rows (G, K)."""
    cut = _Cut(*((u, v) if of_rows else (v, u)), tiles)
    total = u.new_empty(cut.lead)
    sizes = (u.shape[1], v.shape[1], cut.share, LOG2E, LEAST)
    kernels.weighted[cut.grid](u, v, maximum, weight, total, *sizes, of_rows=of_rows, **cut.constants)
    return _added(total)


def _gradient(u: Tensor, v: Tensor, rows: tuple[Tensor, ...], grad_mean: Tensor, of_rows: bool, tiles: Tiles) -> Tensor:
    """Gradient of u (G, N, width) or of v (G, K, width); ``rows`` are m, 1 / s, w and x, each (G, N)."""
    width = u.shape[-1]
    out = out_of(width)
    cut = _Cut(*((u, v) if of_rows else (v, u)), tiles, pieces=-(-width // out))
    grad = u.new_empty(*cut.lead, width)
    sizes = (u.shape[1], v.shape[1], cut.share, LOG2E, LEAST)
    kernels.gradient[cut.grid](u, v, *rows, grad_mean, grad, *sizes, of_rows=of_rows, out=out, **cut.constants)
    return _added(grad)


def _largest(u: Tensor, v: Tensor, offset: Tensor, tiles: Tiles) -> Tensor:
    """First position of the largest of each row, (G, N)."""
    cut = _Cut(u, v, tiles)
    value = u.new_empty(cut.lead)
    index = torch.empty(cut.lead, dtype=torch.int64, device=u.device)
    kernels.largest[cut.grid](u, v, offset, value, index, u.shape[1], v.shape[1], cut.share, **cut.constants)
    return index[0] if cut.parts == 1 else index.gather(0, value.argmax(dim=0, keepdim=True))[0]


def _added(parts: Tensor) -> Tensor:
    return parts[0] if len(parts) == 1 else parts.sum(dim=0)
