"""Soft assignment a chunk at a time: the arithmetic of :mod:`smalti.nn.soft_assignment` for one codebook.

A chunk is some rows against all keys where that fits a core's cache, else against a tile of them. All powers are of
two: y_ij = log2(e) a_ij - m_i and p_ij = 2^(y_ij - l_i), with m_i the rounded largest exponent of row i and l_i the
logarithm of the sum of p~_ij = 2^y_ij that belongs to exactly this m_i. Both are kept apart; their sum, rounded once
more, would cost a factor 16 in precision. Measured on one core of an EPYC (Zen 5), 2^x takes a quarter of the time of
e^x, and numbers too small to be normal, which cost ten times as much as others, are kept out.
"""

import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from smalti.nn.code_search import blocked_max

LOG2E = math.log2(math.e)
LN2 = math.log(2.0)
# Elements of a chunk: as large as half a second-level cache on a CPU, a few launches per call on a GPU.
CPU_BUDGET = 2**18
GPU_BUDGET = 2**25
# With fewer rows the two products of the backward pass run at a third of their speed.
FEWEST_ROWS = 16
# Rows against all keys, unless FEWEST_ROWS of them exceed the budget this many times.
STRETCH = 16
TILE = 4096


@dataclass(frozen=True, kw_only=True)
class Chunking:
    """How an N x K matrix is cut.

    Args:
        rows: of a chunk.
        columns: of a tile; K unless a row does not fit.
        compiled: whether whole chunks go through compiled code.
    """

    rows: int
    columns: int
    compiled: bool = False


def chunking(codes: int, device: torch.device, chunk: int | None, tile: int | None, compiled: bool) -> Chunking:
    """Rows and columns that suit the device, where the caller gives none.

    Raises:
        ValueError: if ``chunk`` or ``tile`` is not positive.

    Example:
        >>> chunking(16384, torch.device("cpu"), None, None, False)
        Chunking(rows=16, columns=16384, compiled=False)
        >>> chunking(2**20, torch.device("cpu"), None, None, False)
        Chunking(rows=64, columns=4096, compiled=False)
    """
    for name, value in (("chunk", chunk), ("tile", tile)):
        if value is not None and value < 1:
            raise ValueError(f"{name}={value}: expected a positive number of rows")
    budget = CPU_BUDGET if device.type == "cpu" else GPU_BUDGET
    fits = FEWEST_ROWS * codes <= STRETCH * budget
    columns = tile or (codes if fits else TILE)
    return Chunking(
        rows=chunk or max(FEWEST_ROWS, budget // max(columns, 1)),
        columns=max(min(columns, codes), 1),
        compiled=compiled,
    )


def slices(total: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` that cover ``total``, in order.

    >>> list(slices(5, 3))
    [slice(0, 3, None), slice(3, 5, None)]
    """
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def forward(queries: Tensor, keys: Tensor, how: Chunking) -> tuple[Tensor, ...]:
    """Statistics of softmax(queries keys^T).

    Args:
        queries: with shape (N, d).
        keys: with shape (K, d).
        how: the cut.

    Returns:
        index int64 (N,), m (N,), l (N,), entropy in nats (N,), sum of p over the rows (K,).
    """
    index = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
    maximum, log_sum, entropy = (queries.new_empty(len(queries)) for _ in range(3))
    total = queries.new_zeros(len(keys))
    transposed = keys.T.contiguous()
    work = Workspace(queries, how)
    for rows in slices(len(queries), how.rows):
        q = queries[rows]
        if how.columns >= len(keys):
            work.load(q, transposed)
            index[rows], maximum[rows] = work.largest()
            sums, moments = work.sums()
            total += work.columns(sums.reciprocal())
        else:
            index[rows], maximum[rows], sums, moments = _scan(q, transposed, work, how)
            for tile in slices(len(keys), how.columns):
                work.load(q, transposed[:, tile], maximum[rows])
                total[tile] += work.columns(sums.reciprocal())
        log_sum[rows] = sums.log2()
        entropy[rows] = (LN2 * (log_sum[rows] - moments / sums)).clamp_(min=0)
    return index, maximum, log_sum, entropy, total


def backward(
    saved: tuple[Tensor, ...], grad_log: Tensor, grad_entropy: Tensor, grad_mean: Tensor, how: Chunking
) -> tuple[Tensor, Tensor]:
    """Gradients of the queries (N, d) and the keys (K, d).

    With p~ = 2^y and s = 2^l the gradient is G_ij = p~_ij (x_i + gP_j + w_i y_ij) / s_i, w_i = -ln 2 gH_i and
    x_i = gl_i - gH_i H_i - w_i l_i - sum_k p_ik gP_k; the division is left to vectors.

    Args:
        saved: queries (N, d), keys (K, d), m (N,), l (N,), entropy (N,).
        grad_log: gradient of the log-partition, (N,).
        grad_entropy: gradient of the entropy, (N,).
        grad_mean: gradient of the mean probability, divided by N, (K,).
        how: the cut of the forward pass.
    """
    queries, keys, maximum, log_sum, entropy = saved
    transposed = keys.T.contiguous()
    grad_queries = torch.empty_like(queries)
    grad_keys = torch.zeros_like(transposed)  # transposed: u^T G runs three times faster than G^T u
    slope = -LN2 * grad_entropy
    offset = grad_log - grad_entropy * entropy - slope * log_sum
    inverse = log_sum.neg().exp2()
    work = Workspace(queries, how)
    for rows in slices(len(queries), how.rows):
        q, m, scale = queries[rows], maximum[rows], inverse[rows]
        tiles = list(slices(len(keys), how.columns))
        constant = offset[rows]
        for tile in tiles:
            work.load(q, transposed[:, tile], m)
            constant = constant - scale * work.against(grad_mean[tile])
        grad_rows = torch.zeros_like(q)
        for tile in tiles:
            if len(tiles) > 1:
                work.load(q, transposed[:, tile], m)
            grad = work.gradient(constant, slope[rows], grad_mean[tile])
            grad_keys[:, tile].addmm_((q * scale[:, None]).T, grad)
            grad_rows += (transposed[:, tile] @ grad.T).T  # grad @ keys takes three times as long
        grad_queries[rows] = grad_rows * scale[:, None]
    return grad_queries, grad_keys.T


def _scan(q: Tensor, keys: Tensor, work: "Workspace", how: Chunking) -> tuple[Tensor, ...]:
    """Index, m, sum of p~ and of p~ y of rows q (n, d) against keys (d, K), tile by tile.

    The sums so far are scaled anew whenever the maximum grows (Milakov & Gimelshein, arXiv:1805.02867).
    """
    index = torch.zeros(len(q), dtype=torch.int64, device=q.device)
    maximum = q.new_full((len(q),), -torch.inf)
    total, moment = torch.zeros_like(maximum), torch.zeros_like(maximum)
    for tile in slices(keys.shape[1], how.columns):
        work.load(q, keys[:, tile])
        within, largest = work.largest()
        sums, moments = work.sums()
        larger = largest > maximum  # the first of equals stays
        index = torch.where(larger, within + tile.start, index)
        grown = torch.where(larger, largest, maximum)
        before, here = (value.clamp(min=work.least) for value in (maximum - grown, largest - grown))
        moment = before.exp2() * (moment + before * total) + here.exp2() * (moments + here * sums)
        total = before.exp2() * total + here.exp2() * sums
        maximum = grown
    return index, maximum, total, moment


class Workspace:
    """Two buffers that every chunk uses again, and what is computed in them: y and p~ = 2^y with shape (n, k).

    Args:
        like: tensor of the dtype and device.
        how: the cut.
    """

    def __init__(self, like: Tensor, how: Chunking) -> None:
        self.compiled = how.compiled
        # A CPU is slow with numbers too small to be normal, and p~ is multiplied by small ones; what this adds to a
        # probability is 1e-29.
        self.least = -96.0 if like.dtype == torch.float32 else -768.0
        self._buffers = like.new_empty(1 if how.compiled else 2, how.rows * how.columns)

    def load(self, q: Tensor, keys: Tensor, maximum: Tensor | None = None) -> None:
        """Takes rows q (n, d) against keys (d, k), with m (n,) unless :meth:`largest` is to find it."""
        shape = len(q), keys.shape[1]
        self._y, self._p = (
            buffer[: shape[0] * shape[1]].view(shape) for buffer in (self._buffers[0], self._buffers[-1])
        )
        torch.mm(q, keys, out=self._y)
        if maximum is not None:
            self._center(maximum)

    def largest(self) -> tuple[Tensor, Tensor]:
        """Index of the largest of each row, and m, both (n,)."""
        largest, index = blocked_max(self._y)
        self._center(largest * LOG2E)
        return index, self._maximum

    def _center(self, maximum: Tensor) -> None:
        self._maximum = maximum
        if not self.compiled:
            torch.add(-maximum[:, None], self._y, alpha=LOG2E, out=self._y).clamp_(min=self.least)
            torch.exp2(self._y, out=self._p)

    def sums(self) -> tuple[Tensor, Tensor]:
        """Sums of p~ and of p~ y over the keys, both (n,); leaves y unusable."""
        if self.compiled:
            found: tuple[Tensor, Tensor] = _compiled(_sums)(self._y, self._maximum, self.least)
            return found
        return self._p.sum(dim=1), self._y.mul_(self._p).sum(dim=1)

    def columns(self, weights: Tensor) -> Tensor:
        """Sum of p~ over the rows, weighted by ``weights`` (n,); with shape (k,)."""
        if self.compiled:
            found: Tensor = _compiled(_columns)(self._y, self._maximum, weights, self.least)
            return found
        return weights @ self._p

    def against(self, vector: Tensor) -> Tensor:
        """p~ times ``vector`` (k,); with shape (n,)."""
        if self.compiled:
            found: Tensor = _compiled(_against)(self._y, self._maximum, vector, self.least)
            return found
        return self._p @ vector

    def gradient(self, constant: Tensor, slope: Tensor, grad_mean: Tensor) -> Tensor:
        """p~ (constant + grad_mean + slope y) of ``constant``, ``slope`` (n,) and ``grad_mean`` (k,); (n, k)."""
        if self.compiled:
            _compiled(_gradient)(self._y, self._maximum, constant, slope, grad_mean, self.least)
            return self._y
        y = torch.addcmul(grad_mean, self._y, slope[:, None], out=self._y)
        return y.add_(constant[:, None]).mul_(self._p)


def _powers(logits: Tensor, maximum: Tensor, least: float) -> tuple[Tensor, Tensor]:
    y = (logits * LOG2E - maximum[:, None]).clamp(min=least)
    return y, y.exp2()


def _sums(logits: Tensor, maximum: Tensor, least: float) -> tuple[Tensor, Tensor]:
    y, p = _powers(logits, maximum, least)
    return p.sum(dim=1), (p * y).sum(dim=1)


def _columns(logits: Tensor, maximum: Tensor, weights: Tensor, least: float) -> Tensor:
    return (_powers(logits, maximum, least)[1] * weights[:, None]).sum(dim=0)


def _against(logits: Tensor, maximum: Tensor, vector: Tensor, least: float) -> Tensor:
    return (_powers(logits, maximum, least)[1] * vector).sum(dim=1)


def _gradient(
    logits: Tensor, maximum: Tensor, constant: Tensor, slope: Tensor, grad_mean: Tensor, least: float
) -> None:
    y, p = _powers(logits, maximum, least)
    logits.copy_(p * (constant[:, None] + grad_mean + slope[:, None] * y))


def has_cpp_compiler() -> bool:
    """Whether there is a C++ compiler, without which nothing can be compiled for a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "c++"))


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled once, for chunks of any shape."""
    return torch.compile(function, dynamic=True, fullgraph=True)
