"""Binary spherical quantization: the nearest corner of the cube inside the unit sphere.

    u = z / |z|,  q_i = sign(u_i) / sqrt(d),  k = sum_i 2^(i - 1) [u_i >= 0]

The quantizer of BSQ-ViT (Zhao et al., arXiv:2406.07548). ``size`` K is 2^d. Trained with the terms ``entropy`` and
``commitment``.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.nn.unit import unit
from smalti.quantizers._binary import Binary, check_bits

HUGE = 1e15  # the square of larger numbers, added up over channels, comes near the end of float32


class BSQ(Binary):
    """d bits of a unit vector, codes {-1, 1}^d / sqrt(d), + for 0 (Zhao et al., arXiv:2406.07548).

    The gradient is handed straight through to u = z / |z|, see :func:`smalti.nn.unit.unit`. The term ``entropy`` is
    exact: a token's distribution is a product over its bits; their inverse temperature is 1 / its ``temperature``.

    Args:
        channels: number of bits d, at most 62; there are 2^d codes.
        entropy_group: bits whose joint mean assignment the term ``entropy`` measures, a divisor of d up to 18: the sum
            over groups is an upper bound of the entropy of all bits together. None: as few groups as hold at most 18
            bits each, equal or different by one bit; that is the exact value up to 18 bits.
        usage_window: updates over which usage and perplexity are counted, up to 2^24 codes.
    """

    def __init__(
        self,
        *,
        channels: Annotated[int, Field(ge=1, le=62)],
        entropy_group: Annotated[int, Field(ge=1, le=18)] | None = None,
        usage_window: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        check_bits(channels)
        super().__init__(channels, channels**-0.5, entropy_group, usage_window)

    def compared(self, z: Tensor) -> Tensor:
        """u = z / |z| with shape (B, d, h, w), also of latents whose square overflows."""
        largest = z.detach().abs().amax(dim=1, keepdim=True)
        return unit(z / torch.where(largest > HUGE, largest, 1.0))
