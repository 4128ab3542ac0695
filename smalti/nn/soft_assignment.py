"""Soft assignment of tokens to codes in memory O((N + K) d): what entropy losses need, with exact gradients.

With logits a_ij = u_i . v_j and p_i = softmax(a_i), the forward pass goes over chunks of rows and keeps per row the
maximum, the logarithm of the sum and the entropy; the backward pass goes over the same chunks and computes p again:

    dL/da_ij = p_ij [ -gH_i (log p_ij + H_i) + gl_i + (gP_j - c_i) / N ],    c_i = sum_k p_ik gP_k

for upstream gradients gl of the log-partition, gH of the entropy and gP of the mean probability. Nothing of size N x K
is held or saved. One function stands in front of three implementations: chunks on any device, the same chunks compiled
for a CPU, and Triton kernels for CUDA.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from smalti.nn import _chunks, _triton_ready
from smalti.nn.precision import at_least_float32, full_precision

Kernel = Literal["auto", "eager", "compiled", "triton"]
KERNELS = ("auto", "eager", "compiled", "triton")


@dataclass(frozen=True, kw_only=True)
class SoftAssignment:
    """Statistics of p_i = softmax_j(a_ij), all but the indices differentiable; (G, ...) for G problems at once.

    Args:
        indices: argmax_j a_ij, the first of equals, int64 with shape (N,).
        log_partition: log sum_j exp a_ij, with shape (N,).
        entropy: -sum_j p_ij log p_ij in nats, with shape (N,).
        mean_probability: mean of p_i over the tokens, with shape (K,). For codes of bits that are measured in groups,
            those of the groups, one after the other: the sum of their entropies is an upper bound of the entropy of
            all bits together (subadditivity), equal to it for independent groups.
    """

    indices: Tensor
    log_partition: Tensor
    entropy: Tensor
    mean_probability: Tensor


def soft_assign(
    queries: Tensor, keys: Tensor, *, chunk: int | None = None, tile: int | None = None, kernel: Kernel = "auto"
) -> SoftAssignment:
    """Statistics of softmax(queries keys^T), in at least float32 whatever autocast says.

    Args:
        queries: u with shape (N, d), or (G, N, d) for G problems of one shape.
        keys: v with shape (K, d), or (G, K, d).
        chunk: rows of ``queries`` that are handled at a time; None chooses by K and the device.
        tile: rows of ``keys`` that are handled at a time; None: all, unless K is so large that few rows fit a cache.
        kernel: ``eager``, ``compiled`` (chunks compiled for a CPU: half a minute once for each shape, then faster),
            ``triton`` (CUDA, float32) or ``auto``, which is ``triton`` where that works and ``eager`` elsewhere. What
            cannot run here, or fails in either pass, is replaced by ``eager``, with a line in the log.

    Raises:
        ValueError: if shapes do not fit, or ``chunk`` or ``tile`` is not positive.

    Example:
        >>> assignment = soft_assign(torch.zeros(3, 2), torch.zeros(4, 2))
        >>> assignment.entropy, assignment.mean_probability
        (tensor([1.3863, 1.3863, 1.3863]), tensor([0.2500, 0.2500, 0.2500, 0.2500]))
    """
    if queries.ndim not in {2, 3} or queries.shape[:-2] != keys.shape[:-2] or queries.shape[-1] != keys.shape[-1]:
        raise ValueError(
            f"queries {tuple(queries.shape)}, keys {tuple(keys.shape)}: expected (N, d) and (K, d), or (G, N, d) and "
            "(G, K, d)"
        )
    batched = queries.ndim == 3
    queries, keys = at_least_float32(queries), at_least_float32(keys)
    if not batched:
        queries, keys = queries.unsqueeze(0), keys.unsqueeze(0)
    chosen = _choose(kernel, queries.device, queries.dtype, queries.shape[-1])
    how = _chunks.chunking(keys.shape[1], queries.device, chunk, tile, chosen == "compiled")
    found = _SoftAssign.apply(queries, keys, how, chosen)  # type: ignore[no-untyped-call]
    indices, log_partition, entropy, mean = found if batched else (value.squeeze(0) for value in found)
    return SoftAssignment(indices=indices, log_partition=log_partition, entropy=entropy, mean_probability=mean)


def assign_codes(
    z: Tensor,
    codebook: Tensor,
    *,
    temperature: float,
    chunk: int | None = None,
    tile: int | None = None,
    kernel: Kernel = "auto",
) -> SoftAssignment:
    """Soft assignment of tokens to codes with logits -|z_i - e_j|^2 / temperature.

    The term |z_i|^2 is constant in j and left out: it would cost digits, and neither the softmax nor its gradient needs
    it. ``log_partition`` is the only result that misses it.

    Args:
        z: tokens with shape (N, d), or (G, N, d) for G codebooks of one shape.
        codebook: codes with shape (K, d), or (G, K, d).
        temperature: positive.
        chunk: as for :func:`soft_assign`.
        tile: as for :func:`soft_assign`.
        kernel: as for :func:`soft_assign`.
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: expected a positive number")
    with full_precision():
        z, codebook = at_least_float32(z), at_least_float32(codebook)
        queries = torch.cat([z * (2.0 / temperature), torch.ones_like(z[..., :1])], dim=-1)
        keys = torch.cat([codebook, -codebook.square().sum(dim=-1, keepdim=True) / temperature], dim=-1)
        return soft_assign(queries, keys, chunk=chunk, tile=tile, kernel=kernel)


class _SoftAssign(torch.autograd.Function):
    """(queries (G, N, d), keys (G, K, d)) -> index, log-partition, entropy, each (G, N), mean probability (G, K)."""

    @staticmethod
    @full_precision()
    def forward(
        ctx: Any, queries: Tensor, keys: Tensor, how: _chunks.Chunking, kernel: Kernel
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        found = _triton_forward(queries, keys) if kernel == "triton" and queries.shape[1] else None
        if found is None:
            kernel = "compiled" if kernel == "compiled" else "eager"
            found = _stack([_chunks.forward(u, v, how) for u, v in zip(queries, keys, strict=True)])
        index, maximum, log_sum, entropy, total = found
        ctx.save_for_backward(queries, keys, maximum, log_sum, entropy)
        ctx.how, ctx.kernel = how, kernel
        ctx.mark_non_differentiable(index)
        return index, _chunks.LN2 * (maximum + log_sum), entropy, total / max(queries.shape[1], 1)

    @staticmethod
    @once_differentiable
    @full_precision()
    def backward(
        ctx: Any, _: Tensor, grad_log: Tensor, grad_entropy: Tensor, grad_mean: Tensor
    ) -> tuple[Tensor, Tensor, None, None]:
        grad_mean = grad_mean / max(ctx.saved_tensors[0].shape[1], 1)
        upstream = (grad_log, grad_entropy, grad_mean)
        found = _triton_backward(ctx.saved_tensors, upstream) if ctx.kernel == "triton" else None
        if found is None:
            problems = zip(zip(*ctx.saved_tensors, strict=True), *upstream, strict=True)
            found = _stack([_chunks.backward(*problem, how=ctx.how) for problem in problems])
        queries, keys = found
        return queries, keys, None, None


def _triton_forward(queries: Tensor, keys: Tensor) -> Sequence[Tensor] | None:
    """As :func:`_chunks.forward` for G problems; None if a kernel fails."""

    def call() -> Sequence[Tensor]:
        from smalti.nn import _triton_launch

        return _triton_launch.forward(queries, keys)

    return _triton_ready.attempt("soft assignment", queries.device, queries.shape[-1], call)


def _triton_backward(saved: tuple[Tensor, ...], upstream: tuple[Tensor, Tensor, Tensor]) -> Sequence[Tensor] | None:
    """As :func:`_chunks.backward` for G problems; None if a kernel fails."""

    def call() -> Sequence[Tensor]:
        from smalti.nn import _triton_launch

        return _triton_launch.backward(saved, *upstream)

    return _triton_ready.attempt("soft assignment", saved[0].device, saved[0].shape[-1], call)


def _stack(problems: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Results of G problems -> each result with G in front."""
    if len(problems) == 1:
        return [value.unsqueeze(0) for value in problems[0]]
    return [torch.stack(values) for values in zip(*problems, strict=True)]


def path(device: torch.device, dtype: torch.dtype, d: int) -> str:
    """What ``kernel="auto"`` runs: ``triton``, or ``eager`` and why, for the log of a run.

    The first call for a GPU tries the kernels, as the first :func:`soft_assign` would; a kernel that fails later
    changes the answer.

    Args:
        device: of the tensors.
        dtype: of the tensors; narrower ones than float32 become float32.
        d: channels of the queries; :func:`assign_codes` adds one to those of the codes.

    Example:
        >>> path(torch.device("cpu"), torch.float32, 9)
        'eager'
    """
    if not _triton_ready.is_gpu(device):
        return "eager"
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    reason = _triton_ready.why_not("soft assignment", device, wide, d)
    return "triton" if reason is None else f"eager ({reason})"


def _choose(kernel: Kernel, device: torch.device, dtype: torch.dtype, channels: int) -> Kernel:
    """The implementation that runs here."""
    if kernel not in KERNELS:
        raise ValueError(f"kernel={kernel!r}: expected {', '.join(map(repr, KERNELS))}")
    if kernel == "compiled" and not (device.type == "cpu" and _chunks.has_cpp_compiler()):
        _triton_ready.tell("kernel='compiled' needs a CPU and a C++ compiler: plain chunks instead")
        return "eager"
    if kernel == "triton" or (kernel == "auto" and _triton_ready.is_gpu(device) and not torch.compiler.is_compiling()):
        silent = kernel == "auto" and dtype != torch.float32  # nobody expects a kernel there
        if _triton_ready.runs("soft assignment", device, dtype, channels, silent=silent):
            return "triton"
    return "compiled" if kernel == "compiled" else "eager"
