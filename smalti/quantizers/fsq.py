"""Finite scalar quantization: each channel is bounded and rounded to one of L values.

    q_i = round(f(z_i)) / floor(L_i / 2),  f(z) = h tanh(z + tan(o / h)) - o,  h = (L - 1)(1 - eps) / 2

with o = 1/2 for even and 0 for odd L, and eps = 1e-3 (Mentzer et al., arXiv:2309.15505). The shift by a tangent is that
of the published code; the inverse of tanh would put z = 0 on 0 exactly. iFSQ (arXiv:2601.17124) replaces tanh(x) by
2 sigmoid(1.6 x) - 1, which spreads normal latents more evenly over the values. ``size`` K is the product of all L_i.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from smalti.nn.memory_format import stack_channels
from smalti.outputs import CodebookRecord
from smalti.quantizers import MOST_CODES
from smalti.quantizers._digits import Grid
from smalti.registry import shown

Bound = Literal["tanh", "sigmoid"]
EPS = 1e-3  # keeps the bounds within the outermost values


class FSQ(Grid):
    """Channels rounded to L equidistant values in [-1, 1], nothing learned (Mentzer et al., arXiv:2309.15505).

    An even L has one value more below 0 than above: -1, ..., 1 - 2 / L. The gradient is handed straight through to the
    bounded latent, which is what the record holds as ``z``.

    Args:
        levels: number of values L of each channel, each at least 2; 1000 codes as published for 2^10. The published
            bound leaves the outermost values of more than 1000 unused.
        bound: ``tanh``, or ``sigmoid`` with 2 sigmoid(1.6 x) - 1 in its place (iFSQ, arXiv:2601.17124).
        usage_window: updates over which usage and perplexity are counted, up to 2^24 codes.

    Example:
        >>> quantizer = FSQ(levels=[5, 4]).eval()
        >>> record = quantizer(torch.tensor([0.7, 9.0]).view(1, 2, 1, 1))
        >>> record.latent.flatten(), record.indices
        (tensor([0.5000, 0.5000]), tensor([[[18]]]))
    """

    def __init__(
        self,
        *,
        levels: Annotated[Sequence[Annotated[int, Field(ge=2)]], Field(min_length=1)] = (8, 5, 5, 5),
        bound: Bound = "tanh",
        usage_window: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        if bound not in {"tanh", "sigmoid"}:
            raise ValueError(f"bound={bound!r}: expected 'tanh' or 'sigmoid'")
        _check(levels)
        super().__init__(levels, usage_window)
        self.bound = bound

    @property
    def terms(self) -> frozenset[str]:
        """Only ``disentangle``: there is nothing to learn, and every latent is near a code."""
        return frozenset({"disentangle"})

    def compared(self, z: Tensor) -> Tensor:
        """f(z) / floor(L / 2) for z (B, d, h, w), of the same shape, nan where z is not finite."""
        bounded = [
            _bounded(values, level, self.bound) / (level // 2)
            for values, level in zip(z.unbind(dim=1), self.levels, strict=True)
        ]
        return torch.where(z.isfinite(), stack_channels(bounded, z), torch.nan)

    def quantize(self, points: Tensor) -> CodebookRecord:
        """The nearest values of points (B, d, h, w); where they are not finite, the token is -1 and the latent nan."""
        digits = []
        for values, level in zip(points.detach().unbind(dim=1), self.levels, strict=True):
            nearest = (values.nan_to_num() * (level // 2)).round() + level // 2
            digits.append(nearest.clamp(0, level - 1).long())
        quantized, indices, latent = self.choose(stack_channels(digits, points), points)
        return CodebookRecord(z=points, quantized=quantized, latent=latent, indices=indices, terms=self.terms)

    def codes(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        """(digit - floor(L / 2)) / floor(L / 2) for digits (B, d, h, w), of the same shape."""
        found = []
        for digit, level in zip(digits.unbind(dim=1), self.levels, strict=True):
            centred = (digit - level // 2).to(dtype)
            # A division by a number would be a product with its inverse on a GPU: 3 / 3 is to be 1 everywhere.
            found.append(centred / torch.full_like(centred, level // 2))
        return stack_channels(found, digits)


def _bounded(z: Tensor, level: int, bound: Bound) -> Tensor:
    """f(z) of any shape, whose rounded values are the whole numbers from -floor(L / 2), L of them."""
    reach = 0.5 * (level - 1) * (1 - EPS)
    offset = 0.0 if level % 2 else 0.5
    shifted = z + math.tan(offset / reach)
    within = torch.tanh(shifted) if bound == "tanh" else 2 * torch.sigmoid(1.6 * shifted) - 1
    return within * reach - offset


def _check(levels: Sequence[int]) -> None:
    if not levels:
        raise ValueError("levels=[]: expected the number of values of each channel")
    size = 1
    for level in levels:
        if level < 2:
            raise ValueError(f"levels={shown(list(levels))}: {level} values, expected at least 2 of each channel")
        size *= level
        if size > MOST_CODES:
            raise ValueError(f"levels={shown(list(levels))}: {shown(math.prod(levels))} codes, expected at most 2^62")
