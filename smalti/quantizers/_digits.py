"""Codes on a grid that no table holds: an index is a number of mixed radix, one digit a channel.

With L_i values in channel i, the index is sum_i digit_i prod_{j < i} L_j: the first channel is the least significant.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from smalti.nn.gradient import straight_through
from smalti.nn.precision import at_least_float32
from smalti.quantizers import Quantizer, masked


class Grid(Quantizer):
    """Base of quantizers whose codes are all combinations of L_i equidistant values in channel i; nothing is learned.

    Args:
        levels: number of values of each channel; their product, ``size``, is at most 2^62.
        usage_window: updates over which usage and perplexity are counted.
    """

    like: Tensor

    def __init__(self, levels: Sequence[int], usage_window: int) -> None:
        super().__init__()
        self.levels = tuple(levels)
        self.channels, self.size = len(self.levels), math.prod(self.levels)
        self.count_usage(usage_window)
        # No parameter says where codes belong, and in what precision.
        self.register_buffer("like", torch.zeros(()), persistent=False)

    @abstractmethod
    def codes(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        """The values of digits (B, d, h, w), an affine function in each channel, of the same shape."""

    def choose(self, digits: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes and latent (B, d, h, w), and indices (B, h, w), of digits; nan and -1 where points are not finite.

        In training the latent's gradient goes to ``points``, what the digits were read from.
        """
        quantized, indices = masked(self.codes(digits, points.dtype), number(digits, self.levels), points)
        return quantized, indices, straight_through(points, quantized) if self.training else quantized

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes of ``indices`` (B, h, w), with shape (B, d, h, w).

        Raises:
            IndexError: if one is no code.
        """
        if indices.numel() and not bool(((indices >= 0) & (indices < self.size)).all()):
            low, high = (int(value) for value in indices.aminmax())
            raise IndexError(f"indices from {low} to {high}: expected 0 to {self.size - 1}")
        return self.codes(digits_of(indices, self.levels), self._dtype)

    @torch.no_grad()
    def mean(self) -> Tensor:
        """The mean code with shape (d,), weighted by how often codes were chosen over the window if that is known.

        Before the first update, and where they are too many to be counted, all codes count equally.
        """
        if self.window is None:
            digits = torch.tensor([(level - 1) / 2 for level in self.levels], dtype=torch.float64)
        else:
            digits = torch.stack(list(_mean_digits(self.weights(), self.levels)))
        return self.codes(digits.to(self.like.device).view(1, -1, 1, 1), self._dtype).flatten()

    @property
    def _dtype(self) -> torch.dtype:
        return at_least_float32(self.like).dtype


def number(digits: Tensor, levels: Sequence[int]) -> Tensor:
    """The indices (B, h, w) of int64 digits (B, d, h, w), digit i of ``levels[i]`` values.

    Example:
        >>> number(torch.tensor([3, 1]).view(1, 2, 1, 1), [8, 5])
        tensor([[[11]]])
    """
    index = torch.zeros_like(digits[:, 0])
    for digit, level in reversed(list(zip(digits.unbind(dim=1), levels, strict=True))):
        index = index * level + digit
    return index


def digits_of(indices: Tensor, levels: Sequence[int]) -> Tensor:
    """The digits (B, d, h, w) of ``indices`` (B, h, w), the inverse of :func:`number`.

    Example:
        >>> digits_of(torch.tensor([[[11]]]), [8, 5]).flatten()
        tensor([3, 1])
    """
    left, found = indices.long(), []
    for level in levels:
        found.append(left % level)
        left = left // level
    return torch.stack(found, dim=1)


def _mean_digits(weights: Tensor, levels: Sequence[int]) -> Iterator[Tensor]:
    """The mean digit of each channel, float64 scalars, under weights (K,) of the codes."""
    below = 1
    for level in levels:
        each = weights.view(-1, level, below).sum(dim=(0, 2)).double()
        yield (each * torch.arange(level, device=each.device)).sum() / each.sum()
        below *= level
