"""Soft assignment as Triton kernels: nothing of size N x K ever leaves a processor of the GPU.

Four passes over tiles of rows against tiles of keys: statistics of rows, sums of columns, gradient of rows, gradient of
keys. Each output has one writer that adds up in a fixed order, so results are the same in every run. Formulas and names
are those of :mod:`smalti.nn._chunks`. Needs ``triton``; with ``TRITON_INTERPRET=1`` it runs on a CPU, for tests.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F

from smalti.nn._chunks import LN2, LOG2E

ROWS, KEYS = 64, 64
LEAST = -96.0


def forward(queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Statistics of softmax(queries keys^T) in float32.

    Args:
        queries: with shape (G, N, d).
        keys: with shape (G, K, d).

    Returns:
        index int64, m, l, entropy in nats, each (G, N), and the sum of p over the rows (G, K).
    """
    u, v = _padded(queries), _padded(keys)
    groups, count, width = u.shape
    codes = v.shape[1]
    index = torch.empty(groups, count, dtype=torch.int64, device=u.device)
    maximum, sums, moments = (u.new_empty(groups, count) for _ in range(3))
    total = u.new_empty(groups, codes)
    sizes = (count, codes, LOG2E, LEAST, width, ROWS, KEYS)
    _rows_forward[(triton.cdiv(count, ROWS), groups)](u, v, index, maximum, sums, moments, *sizes)
    log_sum = sums.log2()
    _keys_forward[(triton.cdiv(codes, KEYS), groups)](u, v, maximum, sums.reciprocal(), total, *sizes)
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
    u, v = _padded(queries), _padded(keys)
    groups, count, width = u.shape
    codes = v.shape[1]
    slope = -LN2 * grad_entropy
    offset = grad_log - grad_entropy * entropy - slope * log_sum
    inverse = log_sum.neg().exp2()
    constant = torch.empty_like(maximum)
    grad_u, grad_v = torch.empty_like(u), torch.empty_like(v)
    sizes = (count, codes, LOG2E, LEAST, width, ROWS, KEYS)
    rows = [value.contiguous() for value in (maximum, inverse, slope)]
    grad_mean = grad_mean.contiguous()
    _rows_backward[(triton.cdiv(count, ROWS), groups)](
        u, v, *rows, offset.contiguous(), grad_mean, constant, grad_u, *sizes
    )
    _keys_backward[(triton.cdiv(codes, KEYS), groups)](u, v, *rows, constant, grad_mean, grad_v, *sizes)
    return grad_u[..., : queries.shape[-1]], grad_v[..., : keys.shape[-1]]


def _padded(value: Tensor) -> Tensor:
    """(G, n, d) with zeros behind d up to a power of two of at least 16, which matrix units want."""
    width = max(16, triton.next_power_of_2(value.shape[-1]))
    return F.pad(value, (0, width - value.shape[-1])).contiguous()


@triton.jit
def _load(base, first, count, group, width: tl.constexpr, block: tl.constexpr):
    """Rows first .. first + block of (G, count, width); zeros behind the end."""
    at = first + tl.arange(0, block)
    place = (group * count + at)[:, None] * width + tl.arange(0, width)[None, :]
    return tl.load(base + place, mask=(at < count)[:, None], other=0.0)


@triton.jit
def _load_vector(base, first, count, group, block: tl.constexpr):
    at = first + tl.arange(0, block)
    return tl.load(base + group * count + at, mask=at < count, other=0.0)


@triton.jit
def _store_vector(base, value, first, count, group, block: tl.constexpr):
    at = first + tl.arange(0, block)
    tl.store(base + group * count + at, value, mask=at < count)


@triton.jit
def _powers(q, k, maximum, row, column, count, codes, log2e, least, rows: tl.constexpr, keys: tl.constexpr):
    """y and p~ = 2^y of one tile; p~ is 0 outside the matrix."""
    logits = tl.dot(q, tl.trans(k), input_precision="ieee")
    y = tl.maximum(logits * log2e - maximum[:, None], least)
    inside = ((row + tl.arange(0, rows)) < count)[:, None] & ((column + tl.arange(0, keys)) < codes)[None, :]
    return y, tl.where(inside, tl.exp2(y), 0.0)


@triton.jit
def _rows_forward(
    u, v, index, maximum, sums, moments, count, codes, log2e, least,
    width: tl.constexpr, rows: tl.constexpr, keys: tl.constexpr,
):  # fmt: skip
    group, row = tl.program_id(1), tl.program_id(0) * rows
    q = _load(u, row, count, group, width, rows)
    best = tl.zeros([rows], dtype=tl.int32)
    m = tl.full([rows], float("-inf"), dtype=tl.float32)
    s = tl.zeros([rows], dtype=tl.float32)
    t = tl.zeros([rows], dtype=tl.float32)
    for column in range(0, codes, keys):
        k = _load(v, column, codes, group, width, keys)
        inside = ((column + tl.arange(0, keys)) < codes)[None, :]
        logits = tl.where(inside, tl.dot(q, tl.trans(k), input_precision="ieee"), float("-inf"))
        top, at = tl.max(logits, axis=1, return_indices=True)
        larger = top * log2e > m  # the first of equals stays
        best = tl.where(larger, at.to(tl.int32) + column, best)
        grown = tl.where(larger, top * log2e, m)
        y = tl.maximum(logits * log2e - grown[:, None], least)
        p = tl.where(inside, tl.exp2(y), 0.0)
        shift = tl.maximum(m - grown, least)
        t = tl.exp2(shift) * (t + shift * s) + tl.sum(p * y, axis=1)
        s = tl.exp2(shift) * s + tl.sum(p, axis=1)
        m = grown
    _store_vector(index, best.to(tl.int64), row, count, group, rows)
    _store_vector(maximum, m, row, count, group, rows)
    _store_vector(sums, s, row, count, group, rows)
    _store_vector(moments, t, row, count, group, rows)


@triton.jit
def _keys_forward(
    u, v, maximum, inverse, total, count, codes, log2e, least,
    width: tl.constexpr, rows: tl.constexpr, keys: tl.constexpr,
):  # fmt: skip
    group, column = tl.program_id(1), tl.program_id(0) * keys
    k = _load(v, column, codes, group, width, keys)
    found = tl.zeros([keys], dtype=tl.float32)
    for row in range(0, count, rows):
        q = _load(u, row, count, group, width, rows)
        m = _load_vector(maximum, row, count, group, rows)
        _, p = _powers(q, k, m, row, column, count, codes, log2e, least, rows, keys)
        found += tl.sum(p * _load_vector(inverse, row, count, group, rows)[:, None], axis=0)
    _store_vector(total, found, column, codes, group, keys)


@triton.jit
def _rows_backward(
    u, v, maximum, inverse, slope, offset, grad_mean, constant, grad_u, count, codes, log2e, least,
    width: tl.constexpr, rows: tl.constexpr, keys: tl.constexpr,
):  # fmt: skip
    group, row = tl.program_id(1), tl.program_id(0) * rows
    q = _load(u, row, count, group, width, rows)
    m = _load_vector(maximum, row, count, group, rows)
    w = _load_vector(slope, row, count, group, rows)
    plain = tl.zeros([rows, width], dtype=tl.float32)  # sum of p~ e
    weighted = tl.zeros([rows, width], dtype=tl.float32)  # sum of p~ (gP + w y) e
    c = tl.zeros([rows], dtype=tl.float32)
    for column in range(0, codes, keys):
        k = _load(v, column, codes, group, width, keys)
        g = _load_vector(grad_mean, column, codes, group, keys)
        y, p = _powers(q, k, m, row, column, count, codes, log2e, least, rows, keys)
        c += tl.sum(p * g[None, :], axis=1)
        plain += tl.dot(p, k, input_precision="ieee")
        weighted += tl.dot(p * (g[None, :] + w[:, None] * y), k, input_precision="ieee")
    scale = _load_vector(inverse, row, count, group, rows)
    x = _load_vector(offset, row, count, group, rows) - scale * c
    _store_vector(constant, x, row, count, group, rows)
    at = row + tl.arange(0, rows)
    place = (group * count + at)[:, None] * width + tl.arange(0, width)[None, :]
    tl.store(grad_u + place, scale[:, None] * (weighted + x[:, None] * plain), mask=(at < count)[:, None])


@triton.jit
def _keys_backward(
    u, v, maximum, inverse, slope, constant, grad_mean, grad_v, count, codes, log2e, least,
    width: tl.constexpr, rows: tl.constexpr, keys: tl.constexpr,
):  # fmt: skip
    group, column = tl.program_id(1), tl.program_id(0) * keys
    k = _load(v, column, codes, group, width, keys)
    g = _load_vector(grad_mean, column, codes, group, keys)
    found = tl.zeros([keys, width], dtype=tl.float32)
    for row in range(0, count, rows):
        q = _load(u, row, count, group, width, rows)
        m = _load_vector(maximum, row, count, group, rows)
        x = _load_vector(constant, row, count, group, rows)
        w = _load_vector(slope, row, count, group, rows)
        scale = _load_vector(inverse, row, count, group, rows)
        y, p = _powers(q, k, m, row, column, count, codes, log2e, least, rows, keys)
        grad = scale[:, None] * p * (x[:, None] + g[None, :] + w[:, None] * y)
        found += tl.dot(tl.trans(grad), q, input_precision="ieee")
    at = column + tl.arange(0, keys)
    place = (group * codes + at)[:, None] * width + tl.arange(0, width)[None, :]
    tl.store(grad_v + place, found, mask=(at < codes)[:, None])
