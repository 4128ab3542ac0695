"""Soft assignment of tokens to the 2^d corners of a cube, bit by bit: exact, and no list of corners.

With codes c in {-s, s}^d and logits -|z - c|^2 / T a token's distribution is a product over its bits,

    p(c) = prod_b sigmoid(+-l_b),    l_b = 4 s z_b / T,

so that its entropy and log-partition are sums over bits. Of the mean assignment P = mean_n p_n the 2^d entries are a
product of matrices: with U the probabilities of the first half of the bits (N, 2^(d/2)) and V those of the other half,
P = V^T U / N. Both go over chunks of tokens, and the backward pass computes them again:

    dL/dl_b = sigmoid(-l_b) sum_{c: bit b} w_c - sigmoid(l_b) sum_{c: no bit b} w_c,    w = U * (V gP) / N

for U, and likewise for V; nothing but z is saved.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from smalti.nn.code_search import row_chunks
from smalti.nn.precision import at_least_float32, full_precision
from smalti.nn.soft_assignment import SoftAssignment

MOST_BITS = 18  # of a group: its mean assignment has 2^18 entries, 1 MiB of float32
_FARTHEST = 1e4  # logits beyond it say the same as it, in every precision, and do not overflow


def groups_of_bits(bits: int, group: int | None = None) -> tuple[int, ...]:
    """Sizes of the groups of bits whose mean assignment is measured together.

    Args:
        bits: their number d.
        group: size of each group, a divisor of d up to 18; None: as few groups as hold at most 18 bits each, equal or
            different by one bit.

    Raises:
        ValueError: if ``group`` is no such divisor.

    Example:
        >>> groups_of_bits(18), groups_of_bits(36), groups_of_bits(19), groups_of_bits(12, 4)
        ((18,), (18, 18), (10, 9), (4, 4, 4))
    """
    if group is None:
        count = -(-bits // MOST_BITS)
        return tuple(bits // count + (number < bits % count) for number in range(count))
    if not 1 <= group <= MOST_BITS or bits % group:
        fitting = ", ".join(str(size) for size in range(1, MOST_BITS + 1) if bits % size == 0)
        raise ValueError(f"entropy_group={group}: expected a divisor of {bits} bits up to {MOST_BITS}: {fitting}")
    return (group,) * (bits // group)


def assign_bits(
    z: Tensor, *, scale: float, temperature: float, groups: Sequence[int] | None = None, chunk: int | None = None
) -> SoftAssignment:
    """Soft assignment of tokens to codes {-scale, scale}^d with logits -|z_i - c|^2 / temperature.

    As in :func:`smalti.nn.soft_assignment.assign_codes`, the term |z_i|^2 is left out. The first channel is the least
    significant bit of an index, and a value of 0 counts as positive.

    Args:
        z: tokens with shape (N, d), or (G, N, d) for G problems of one shape.
        scale: positive.
        temperature: positive.
        groups: sizes of groups of bits that add up to d; ``mean_probability`` is the mean assignment of each group, one
            after the other. None: see :func:`groups_of_bits`.
        chunk: tokens that are handled at a time; None chooses by the groups and the device.

    Raises:
        ValueError: if ``temperature`` is not positive, or ``groups`` do not add up to d.

    Example:
        >>> found = assign_bits(torch.tensor([[0.0, 9.0]]), scale=1.0, temperature=1.0)
        >>> found.indices, found.entropy, found.mean_probability
        (tensor([3]), tensor([0.6931]), tensor([1.1598e-16, 1.1598e-16, 5.0000e-01, 5.0000e-01]))
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: expected a positive number")
    groups = tuple(groups_of_bits(z.shape[-1]) if groups is None else groups)
    if sum(groups) != z.shape[-1]:
        raise ValueError(f"groups={groups}: expected sizes that add up to {z.shape[-1]} bits")
    z = at_least_float32(z)
    stacked = z if z.ndim == 3 else z.unsqueeze(0)
    found = _AssignBits.apply(stacked, scale, temperature, groups, chunk)  # type: ignore[no-untyped-call]
    log_partition, entropy, mean = found if z.ndim == 3 else (value.squeeze(0) for value in found)
    weights = 2 ** torch.arange(z.shape[-1], device=z.device)
    indices = ((z >= 0) * weights).sum(dim=-1)
    return SoftAssignment(indices=indices, log_partition=log_partition, entropy=entropy, mean_probability=mean)


class _AssignBits(torch.autograd.Function):
    """z (G, N, d) -> log-partition and entropy, both (G, N), mean probability (G, sum of 2^group)."""

    @staticmethod
    @full_precision()
    def forward(
        ctx: Any, z: Tensor, scale: float, temperature: float, groups: tuple[int, ...], chunk: int | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        slope = 4.0 * scale / temperature
        far = (z * slope).abs()
        least = F.softplus(-far)  # -log of the likelier bit's probability
        log_partition = (0.5 * far + least).sum(dim=-1) - z.shape[-1] * scale**2 / temperature
        far = far.clamp(max=_FARTHEST)
        entropy = (least + far * torch.sigmoid(-far)).sum(dim=-1)
        mean = z.new_zeros(len(z), sum(2**size for size in groups))
        for tokens, total in zip(z, mean, strict=True):
            for bits, codes in _places(groups):
                part = _as_matrix(total[codes])
                for rows in row_chunks(len(tokens), part.shape[1], z.device, chunk):
                    low, high = _halves(tokens[rows, bits], slope)
                    part.addmm_(high.probabilities().T, low.probabilities())
        ctx.save_for_backward(z)
        ctx.slope, ctx.groups, ctx.chunk = slope, groups, chunk
        return log_partition, entropy, mean / max(z.shape[1], 1)

    @staticmethod
    @once_differentiable
    @full_precision()
    def backward(
        ctx: Any, grad_log: Tensor, grad_entropy: Tensor, grad_mean: Tensor
    ) -> tuple[Tensor, None, None, None, None]:
        (z,) = ctx.saved_tensors
        grad_mean = grad_mean / max(z.shape[1], 1)
        gradient = torch.empty_like(z)
        for tokens, upstream, into in zip(z, grad_mean, gradient, strict=True):
            for bits, codes in _places(ctx.groups):
                # A constant in it has no gradient, and would cost digits.
                part = _as_matrix(upstream[codes] - upstream[codes].mean())
                for rows in row_chunks(len(tokens), part.shape[1], z.device, ctx.chunk):
                    low, high = _halves(tokens[rows, bits], ctx.slope)
                    u, v = low.probabilities(), high.probabilities()
                    into[rows, bits] = torch.cat([low.gradient(u, v @ part), high.gradient(v, u @ part.T)], dim=1)
        logits = _logits(z, ctx.slope)
        spread = logits * torch.sigmoid(logits) * torch.sigmoid(-logits)
        gradient += 0.5 * grad_log[..., None] * torch.tanh(0.5 * logits) - grad_entropy[..., None] * spread
        return ctx.slope * gradient, None, None, None, None


class _Half:
    """Bits with logits l (n, m), and their 2^m joint values."""

    def __init__(self, logits: Tensor) -> None:
        self.set, self.unset = torch.sigmoid(logits), torch.sigmoid(-logits)

    def probabilities(self) -> Tensor:
        """Of all values, with shape (n, 2^m), the first bit the least significant."""
        found = self.set.new_ones(len(self.set), 1)
        for yes, no in zip(self.set.unbind(dim=1), self.unset.unbind(dim=1), strict=True):
            found = torch.cat([found * no[:, None], found * yes[:, None]], dim=1)
        return found

    def gradient(self, probabilities: Tensor, upstream: Tensor) -> Tensor:
        """Gradient of the logits (n, m), from that of the probabilities, both (n, 2^m)."""
        # Less their mean: of a token that is sure of its code, digits of the gradient are left only so.
        weights = probabilities * (upstream - (probabilities * upstream).sum(dim=1, keepdim=True))
        bits = torch.arange(self.set.shape[1], device=weights.device)
        values = torch.arange(weights.shape[1], device=weights.device)
        table = ((values[:, None] >> bits) & 1).to(weights.dtype)
        return self.unset * (weights @ table) - self.set * (weights @ (1 - table))


def _halves(z: Tensor, slope: float) -> tuple[_Half, _Half]:
    """The first and the other half of the bits of tokens (n, m)."""
    logits = _logits(z, slope)
    return _Half(logits[:, : _first(z.shape[1])]), _Half(logits[:, _first(z.shape[1]) :])


def _logits(z: Tensor, slope: float) -> Tensor:
    return (z * slope).clamp(-_FARTHEST, _FARTHEST)


def _first(bits: int) -> int:
    """Bits in the first half."""
    return (bits + 1) // 2


def _as_matrix(values: Tensor) -> Tensor:
    """A value for each of 2^m codes -> one row for each value of the other half of the bits."""
    return values.view(-1, 2 ** _first(len(values).bit_length() - 1))


def _places(groups: Sequence[int]) -> Iterator[tuple[slice, slice]]:
    """Where the bits of each group are, and its codes in the mean assignment."""
    bit = code = 0
    for size in groups:
        yield slice(bit, bit + size), slice(code, code + 2**size)
        bit, code = bit + size, code + 2**size
