"""IBQ's tokenizers of SEED-Voken (Shi et al., arXiv:2412.02692): taming's networks, codes compared by products.

Names and shapes of their tensors are those of taming-transformers, so the format must be named. The other tokenizers of
that project, Open-MAGVIT2's, have networks of their own, which smalti has not.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from smalti.interop import ImportOptions, Twin
from smalti.interop._codebooks import quantizers
from smalti.interop.latent_diffusion import LatentDiffusion


class IBQ(LatentDiffusion):
    """Checkpoints of SEED-Voken's IBQ, with 1,024 to 262,144 codes."""

    title = "IBQ (SEED-Voken)"
    quantizers = ("ibq",)
    by_name_only = True
    asks = frozenset()

    def recognises(self, keys: Collection[str]) -> bool:
        """By taming's levels with a codebook."""
        return super().recognises(keys) and "quantize.embedding.weight" in keys

    def complete(
        self, config: dict[str, Any], beside: Mapping[str, Any], options: ImportOptions, where: str
    ) -> dict[str, Any]:
        """The quantizer, which tensors do not show.

        Raises:
            UserError: if the YAML beside the file asks for what smalti has not.
        """
        config = super().complete(config, beside, options, where)
        for quantizer in quantizers(config).values():
            quantizer["type"] = "ibq"
        return config

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """The weights its quantizer was trained with."""
        return [
            "trained with commitment 2, codebook 1.25 and entropy 0.05 (temperature 0.01), in part through the soft "
            "index, which smalti's terms do not do"
        ]

    def twin(self, model: nn.Module, config: Mapping[str, Any], beside: Mapping[str, Any]) -> Twin | None:
        """None: no other implementation is at hand."""
        return None
