"""GroupNorm and SiLU as Triton kernels over channels_last memory, where a pixel's channels are neighbours.

A sample with P pixels of C channels is a matrix (P, C) in memory. Its rows are cut into chunks; each program walks the
tiles of one chunk. What must be summed over a whole sample is summed per chunk and channel first, and in a second small
pass per group: every number has one writer that adds up in a fixed order, so results are the same in every run, and
those of a sample do not depend on what else is in the batch. Statistics are float32 by Welford's update, whatever the
data are.

With x^ = (x - mean) rstd and z = w x^ + b, for the gradient dz of z and D channels per group:

    dw_c = sum_{n,p} dz x^,   db_c = sum_{n,p} dz,   dx = rstd (w dz - c1 - x^ c2)
    c1 = sum_{p,c in g} w dz / (P D),   c2 = sum_{p,c in g} w dz x^ / (P D)

Needs ``triton``; with ``TRITON_INTERPRET=1`` it runs on a CPU, for tests.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # elements of a tile: 32 registers of each of 128 threads
MOST_CHUNKS = 256  # per sample: what the second pass has to add up
LEAST_TILES = 2  # per chunk
MERGE = 1024  # numbers that the second pass takes at a time
# Fused multiplication and addition as always; Triton 3.9 warns of a default that will change.
LAUNCH = {"num_warps": 4, "enable_fp_fusion": True}


class _Cut(NamedTuple):
    """How a sample is cut: sizes, then blocks of a tile."""

    samples: int
    pixels: int
    channels: int
    chunks: int
    tiles: int
    rows: int
    columns: int


def moments(x: Tensor, groups: int, eps: float) -> Tensor:
    """Mean and 1 / sqrt(variance + eps) of each group: float32 with shape (2, B, groups).

    Args:
        x: with shape (B, C, H, W), channels_last in memory; float32, bfloat16 or float16.
        groups: number of groups; divides C.
        eps: added to the variance.
    """
    cut = _cut(x)
    means, deviations = (_partial(x, cut) for _ in range(2))
    found = torch.empty(2, cut.samples, groups, dtype=torch.float32, device=x.device)
    sizes = (cut.pixels, cut.channels, cut.chunks, cut.tiles)
    with _on(x.device):
        _group_norm_moments_of_chunks[_grid(cut, cut.chunks)](
            x, means, deviations, *sizes, cut.rows, cut.columns, **LAUNCH
        )
        _group_norm_moments_of_groups[(cut.samples * groups,)](
            means, deviations, found, *sizes, cut.samples, groups, eps, cut.rows, MERGE, **LAUNCH
        )
    return found


def forward(x: Tensor, stats: Tensor, weight: Tensor, bias: Tensor, dtype: torch.dtype, *, silu: bool) -> Tensor:
    """The normalised x, or its SiLU, with the shape and the memory format of x.

    Args:
        x: with shape (B, C, H, W), channels_last in memory.
        stats: what :func:`moments` found, with shape (2, B, groups).
        weight: with shape (C,).
        bias: with shape (C,).
        dtype: of the result.
        silu: whether SiLU follows.
    """
    cut = _cut(x)
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.channels_last)
    tiles = triton.cdiv(cut.pixels, cut.rows)
    with _on(x.device):
        _group_norm_forward[_grid(cut, tiles)](
            x, stats, weight, bias, y, cut.pixels, cut.channels, tiles, cut.samples, stats.shape[2],
            silu, cut.rows, cut.columns, **LAUNCH,
        )  # fmt: skip
    return y


def backward(
    grad: Tensor, x: Tensor, stats: Tensor, weight: Tensor, bias: Tensor, *, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x (B, C, H, W), weight (C,) and bias (C,), in their data types.

    Args:
        grad: of the result, with its shape; another memory format than channels_last costs a copy.
        x: as in the forward pass.
        stats: as in the forward pass.
        weight: as in the forward pass.
        bias: as in the forward pass.
        silu: as in the forward pass.
    """
    cut, groups = _cut(x), stats.shape[2]
    grad = grad.contiguous(memory_format=torch.channels_last)
    plain, weighted = (_partial(x, cut) for _ in range(2))
    sums = torch.empty(2, cut.samples, cut.channels, dtype=torch.float32, device=x.device)
    constants = torch.empty_like(stats)
    grad_x = torch.empty_like(x, memory_format=torch.channels_last)
    sizes, tiles = (cut.pixels, cut.channels), triton.cdiv(cut.pixels, cut.rows)
    width = min(triton.next_power_of_2(cut.channels // groups), 128)
    with _on(x.device):
        _group_norm_sums_of_chunks[_grid(cut, cut.chunks)](
            x, grad, stats, weight, bias, plain, weighted, *sizes, cut.chunks, cut.tiles, cut.samples, groups,
            silu, cut.rows, cut.columns, **LAUNCH,
        )  # fmt: skip
        _group_norm_sums_of_groups[(cut.samples * groups,)](
            plain, weighted, weight, sums, constants, *sizes, cut.chunks, cut.samples, groups, MERGE // width, width,
            **LAUNCH,
        )  # fmt: skip
        _group_norm_backward[_grid(cut, tiles)](
            x, grad, stats, weight, bias, constants, grad_x, *sizes, tiles, cut.samples, groups,
            silu, cut.rows, cut.columns, **LAUNCH,
        )  # fmt: skip
    grad_bias, grad_weight = sums.sum(dim=1)
    return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype)


def _cut(x: Tensor) -> _Cut:
    """By the shape of a sample alone: results do not depend on the batch or the device."""
    samples, channels, height, width = x.shape
    pixels = height * width
    columns = channels & -channels  # the largest power of two that divides
    columns = min(128, columns if columns >= 32 else triton.next_power_of_2(channels))
    rows = min(TILE // columns, triton.next_power_of_2(pixels))
    tiles = max(LEAST_TILES, triton.cdiv(triton.cdiv(pixels, rows), MOST_CHUNKS))
    return _Cut(samples, pixels, channels, triton.cdiv(pixels, rows * tiles), tiles, rows, columns)


def _grid(cut: _Cut, parts: int) -> tuple[int, int]:
    return cut.samples * parts, triton.cdiv(cut.channels, cut.columns)


def _partial(x: Tensor, cut: _Cut) -> Tensor:
    return torch.empty(cut.samples, cut.chunks, cut.channels, dtype=torch.float32, device=x.device)


def _on(device: torch.device) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever its arguments are on."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@triton.jit
def _place(sample, first, pixels, channels, column, rows: tl.constexpr, columns: tl.constexpr):
    """Offset of a tile's first pixel, in 64 bits, the offsets within it, and which are inside of the sample."""
    row, c = tl.arange(0, rows)[:, None], (column + tl.arange(0, columns))[None, :]
    start = (sample.to(tl.int64) * pixels + first) * channels
    return start, row * channels + c, (first + row < pixels) & (c < channels)


@triton.jit
def _of_channels(stats, weight, bias, sample, column, channels, samples, groups, columns: tl.constexpr):
    """Mean, 1 / deviation, w and b of the channels of a tile, each (1, columns)."""
    c = column + tl.arange(0, columns)
    inside = c < channels
    at = sample * groups + c // (channels // groups)
    mean = tl.load(stats + at, mask=inside, other=0.0)
    rstd = tl.load(stats + samples * groups + at, mask=inside, other=0.0)
    w = tl.load(weight + c, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=inside, other=0.0).to(tl.float32)
    return mean[None, :], rstd[None, :], w[None, :], b[None, :]


@triton.jit
def _slope(grad, z, silu: tl.constexpr):
    """Gradient of z from that of the result."""
    if silu:
        s = tl.sigmoid(z)
        grad = grad * (s * (1.0 + z * (1.0 - s)))
    return grad


@triton.jit
def _group_norm_moments_of_chunks(
    x, means, deviations, pixels, channels, chunks, tiles, rows: tl.constexpr, columns: tl.constexpr
):
    """Mean and sum of squared deviations of each channel of a chunk."""
    part, column = tl.program_id(0), tl.program_id(1) * columns
    sample, first = part // chunks, (part % chunks) * tiles * rows
    mean = tl.zeros([rows, columns], dtype=tl.float32)
    square = tl.zeros([rows, columns], dtype=tl.float32)
    for i in range(0, tiles):
        start, offset, inside = _place(sample, first + i * rows, pixels, channels, column, rows, columns)
        value = tl.load(x + start + offset, mask=inside, other=0.0).to(tl.float32)
        away = tl.where(inside, value - mean, 0.0)
        mean += away * (1.0 / (i + 1))
        square += away * (value - mean)
    # Each row of the tile has seen the pixels first + row, first + row + rows, ... and merges with the others.
    row = tl.arange(0, rows)
    count = tl.minimum(tl.maximum((pixels - first - row + rows - 1) // rows, 0), tiles).to(tl.float32)[:, None]
    total = tl.minimum(pixels - first, tiles * rows)
    center = tl.sum(count * mean, axis=0) / total
    center += tl.sum(count * (mean - center[None, :]), axis=0) / total  # what rounding of large means has left
    away = mean - center[None, :]
    square = tl.sum(square + count * away * away, axis=0)
    c = column + tl.arange(0, columns)
    at = part.to(tl.int64) * channels + c
    tl.store(means + at, center, mask=c < channels)
    tl.store(deviations + at, square, mask=c < channels)


@triton.jit
def _in_group(entry, sample, group, pixels, channels, chunks, chunk, width):
    """Offset of a group's entry among (B, chunks, C), the pixels it stands for, and whether it is there."""
    part = entry // width
    at = (sample.to(tl.int64) * chunks + part) * channels + group * width + entry % width
    return at, tl.minimum(chunk, pixels - part * chunk).to(tl.float32), part < chunks


@triton.jit
def _group_norm_moments_of_groups(
    means, deviations, stats, pixels, channels, chunks, tiles, samples, groups, eps,
    rows: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    """Mean and 1 / deviation of each group, of those of its chunks and channels."""
    program = tl.program_id(0)
    sample, group, width, chunk = program // groups, program % groups, channels // groups, tiles * rows
    size = 1.0 * pixels * width
    total = tl.zeros([block], dtype=tl.float32)
    for first in range(0, chunks * width, block):
        entry = first + tl.arange(0, block)
        at, count, inside = _in_group(entry, sample, group, pixels, channels, chunks, chunk, width)
        total += tl.where(inside, count * tl.load(means + at, mask=inside, other=0.0), 0.0)
    mean = tl.sum(total, axis=0) / size
    square = tl.zeros([block], dtype=tl.float32)
    rest = tl.zeros([block], dtype=tl.float32)
    for first in range(0, chunks * width, block):
        entry = first + tl.arange(0, block)
        at, count, inside = _in_group(entry, sample, group, pixels, channels, chunks, chunk, width)
        away = tl.load(means + at, mask=inside, other=0.0) - mean
        inner = tl.load(deviations + at, mask=inside, other=0.0)
        square += tl.where(inside, inner + count * away * away, 0.0)
        rest += tl.where(inside, count * away, 0.0)
    left = tl.sum(rest, axis=0) / size  # of the mean, by rounding
    variance = tl.maximum(tl.sum(square, axis=0) / size - left * left, 0.0)
    tl.store(stats + program, mean + left)
    tl.store(stats + samples * groups + program, 1.0 / tl.sqrt(variance + eps))


@triton.jit
def _group_norm_forward(
    x, stats, weight, bias, y, pixels, channels, tiles, samples, groups,
    silu: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    part, column = tl.program_id(0), tl.program_id(1) * columns
    sample, first = part // tiles, (part % tiles) * rows
    mean, rstd, w, b = _of_channels(stats, weight, bias, sample, column, channels, samples, groups, columns)
    start, offset, inside = _place(sample, first, pixels, channels, column, rows, columns)
    value = tl.load(x + start + offset, mask=inside, other=0.0).to(tl.float32)
    z = (value - mean) * rstd * w + b
    if silu:
        z = z * tl.sigmoid(z)
    tl.store(y + start + offset, z, mask=inside)


@triton.jit
def _group_norm_sums_of_chunks(
    x, grad, stats, weight, bias, plain, weighted, pixels, channels, chunks, tiles, samples, groups,
    silu: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """Sums of dz and of dz x^ of each channel of a chunk."""
    part, column = tl.program_id(0), tl.program_id(1) * columns
    sample, first = part // chunks, (part % chunks) * tiles * rows
    mean, rstd, w, b = _of_channels(stats, weight, bias, sample, column, channels, samples, groups, columns)
    total = tl.zeros([rows, columns], dtype=tl.float32)
    moment = tl.zeros([rows, columns], dtype=tl.float32)
    for i in range(0, tiles):
        start, offset, inside = _place(sample, first + i * rows, pixels, channels, column, rows, columns)
        value = tl.load(x + start + offset, mask=inside, other=0.0).to(tl.float32)
        slope = tl.load(grad + start + offset, mask=inside, other=0.0).to(tl.float32)
        normed = (value - mean) * rstd
        slope = _slope(slope, normed * w + b, silu)
        total += slope
        moment += slope * normed
    c = column + tl.arange(0, columns)
    at = part.to(tl.int64) * channels + c
    tl.store(plain + at, tl.sum(total, axis=0), mask=c < channels)
    tl.store(weighted + at, tl.sum(moment, axis=0), mask=c < channels)


@triton.jit
def _group_norm_sums_of_groups(
    plain, weighted, weight, sums, constants, pixels, channels, chunks, samples, groups,
    block: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    """The same sums of each channel of a sample, and c1 and c2 of the group."""
    program = tl.program_id(0)
    sample, group, width = program // groups, program % groups, channels // groups
    first, second = 0.0, 0.0
    for column in range(0, width, columns):
        d = column + tl.arange(0, columns)
        c = group * width + d
        total = tl.zeros([block, columns], dtype=tl.float32)
        moment = tl.zeros([block, columns], dtype=tl.float32)
        for part in range(0, chunks, block):
            at = part + tl.arange(0, block)
            inside = (at < chunks)[:, None] & (d < width)[None, :]
            place = (sample.to(tl.int64) * chunks + at)[:, None] * channels + c[None, :]
            total += tl.load(plain + place, mask=inside, other=0.0)
            moment += tl.load(weighted + place, mask=inside, other=0.0)
        summed, crossed = tl.sum(total, axis=0), tl.sum(moment, axis=0)
        tl.store(sums + sample * channels + c, summed, mask=d < width)
        tl.store(sums + (samples + sample) * channels + c, crossed, mask=d < width)
        w = tl.load(weight + c, mask=d < width, other=0.0).to(tl.float32)
        first += tl.sum(w * summed, axis=0)
        second += tl.sum(w * crossed, axis=0)
    size = 1.0 * pixels * width
    tl.store(constants + program, first / size)
    tl.store(constants + samples * groups + program, second / size)


@triton.jit
def _group_norm_backward(
    x, grad, stats, weight, bias, constants, grad_x, pixels, channels, tiles, samples, groups,
    silu: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
):  # fmt: skip
    part, column = tl.program_id(0), tl.program_id(1) * columns
    sample, first = part // tiles, (part % tiles) * rows
    mean, rstd, w, b = _of_channels(stats, weight, bias, sample, column, channels, samples, groups, columns)
    c1, c2, _, _ = _of_channels(constants, weight, bias, sample, column, channels, samples, groups, columns)
    start, offset, inside = _place(sample, first, pixels, channels, column, rows, columns)
    value = tl.load(x + start + offset, mask=inside, other=0.0).to(tl.float32)
    slope = tl.load(grad + start + offset, mask=inside, other=0.0).to(tl.float32)
    normed = (value - mean) * rstd
    slope = _slope(slope, normed * w + b, silu)
    tl.store(grad_x + start + offset, rstd * (w * slope - c1 - normed * c2), mask=inside)
