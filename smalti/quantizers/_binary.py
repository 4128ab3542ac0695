"""Codes {-s, s}^d: what the quantizers of one bit a channel share, and how their records are measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smalti.nn.bit_assignment import assign_bits, groups_of_bits
from smalti.nn.soft_assignment import Kernel, SoftAssignment
from smalti.outputs import CodebookRecord
from smalti.quantizers._digits import Grid

MOST_BITS = 62  # 2^62 codes have indices of int64


@dataclass(frozen=True, kw_only=True)
class BinaryRecord(CodebookRecord):
    """What a quantizer with codes {-scale, scale}^d did to one batch.

    Its soft assignment is exact and lists no codes, see :func:`smalti.nn.bit_assignment.assign_bits`.

    Args:
        scale: s of the codes {-s, s}^d.
        groups: sizes of the groups of bits whose mean assignment is measured.
    """

    scale: float
    groups: tuple[int, ...]

    @property
    def shape_of_codes(self) -> Any:
        """What records have in common that :meth:`assign` may measure together."""
        return super().shape_of_codes, self.scale, self.groups

    @classmethod
    def assign(
        cls,
        records: "Sequence[CodebookRecord]",
        temperature: float,
        kernel: Kernel = "auto",
    ) -> SoftAssignment:
        """The soft assignment of G records of one shape, each result with G in front.

        Args:
            records: of binary codes.
            temperature: positive, in units of squared distance.
            kernel: chooses between ways to go through a table; of bits there is one.
        """
        first = records[0]
        assert isinstance(first, BinaryRecord)  # those of one shape_of_codes are of one class
        z = torch.stack([record.tokens for record in records])
        return assign_bits(z, scale=first.scale, temperature=temperature, groups=first.groups)


class Binary(Grid):
    """Base of quantizers of one bit a channel: the sign of z, + for 0, decides between -s and s; nothing is learned.

    Args:
        channels: number of bits d, at most 62.
        scale: s.
        entropy_group: bits whose joint mean assignment the term ``entropy`` measures, a divisor of d up to 18; None: as
            few groups as hold at most 18 bits each, equal or different by one bit.
        usage_window: updates over which usage and perplexity are counted.
    """

    def __init__(self, channels: int, scale: float, entropy_group: int | None, usage_window: int) -> None:
        super().__init__((2,) * channels, usage_window)
        self.scale = scale
        self.groups = groups_of_bits(channels, entropy_group)

    @property
    def terms(self) -> frozenset[str]:
        """All losses over records but ``codebook``: there is no table to learn."""
        return frozenset({"commitment", "disentangle", "entropy"})

    def codes(self, digits: Tensor, dtype: torch.dtype) -> Tensor:
        """-s and s for digits 0 and 1, of any shape."""
        return (2 * digits - 1).to(dtype) * self.scale

    def quantize(self, points: Tensor) -> BinaryRecord:
        """The signs of points (B, d, h, w); where they are not finite, the token is -1 and the latent nan."""
        quantized, indices, latent = self.choose((points >= 0).long(), points)
        return BinaryRecord(
            z=points,
            quantized=quantized,
            latent=latent,
            indices=indices,
            terms=self.terms,
            scale=self.scale,
            groups=self.groups,
        )


def check_bits(channels: int) -> None:
    """Refuses numbers of bits that are no width, or whose indices are no int64.

    Raises:
        ValueError: with the number and what is allowed.
    """
    if not 1 <= channels <= MOST_BITS:
        raise ValueError(f"channels={channels}: expected 1 to {MOST_BITS} bits, for indices of int64")
