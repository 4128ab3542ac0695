"""Bits per image: what the tokens of one image take to store."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from smalti.metrics._codes import CodeMetric, entropy


class BitsPerImage(CodeMetric):
    """Bits of all tokens of one image, summed over codebooks, mean over images (Shannon et al., 1948).

    ``bits_per_image`` is nominal, tokens * log2 K; ``bits_per_image_effective`` is tokens * H with the entropy H of the
    codes chosen over the whole evaluation: what an ideal code for single tokens would need. With several codebooks also
    for each: ``bits_per_image/<codebook>`` and ``bits_per_image_effective/<codebook>``. Tokens: (B, G, h, w).
    """

    def summarize(self, counts: Mapping[str, Tensor], sizes: Mapping[str, int], images: Tensor) -> dict[str, Tensor]:
        """Both numbers of bits, from codebook -> counts and number of codes; nothing without a codebook."""
        if not counts:
            return {}
        nominal = torch.stack([of.sum().double() * math.log2(sizes[name]) for name, of in counts.items()])
        effective = torch.stack([of.sum() * entropy(of) for of in counts.values()])
        found: dict[str, Tensor] = {}
        for name, bits in (("bits_per_image", nominal), ("bits_per_image_effective", effective)):
            found[name] = bits.sum() / images
            if len(counts) > 1:
                found |= {f"{name}/{codebook}": of / images for codebook, of in zip(counts, bits, strict=True)}
        return found
