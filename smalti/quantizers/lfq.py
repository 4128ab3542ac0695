"""Lookup-free quantization: the signs of a latent are its code.

    q_i = sign(z_i),  k = sum_i 2^(i - 1) [z_i >= 0]

The quantizer of MAGVIT-v2 (Yu et al., arXiv:2310.05737). ``size`` K is 2^d. Trained with the terms ``entropy`` and
``commitment``.
"""

from typing import Annotated

from pydantic import Field

from smalti.quantizers._binary import Binary, check_bits


class LFQ(Binary):
    """d bits, codes {-1, 1}^d: the sign of each channel, + for 0 (Yu et al., arXiv:2310.05737).

    The gradient is handed straight through. Latents are compared as they come, so the term ``commitment`` keeps them
    near their codes. The term ``entropy`` is exact: a token's distribution is a product over its bits.

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
        super().__init__(channels, 1.0, entropy_group, usage_window)
