"""LlamaGen's generators (Sun et al., arXiv:2406.06525): of classes, B to 3B, and of captions without the text encoder.

A caption comes as features of FLAN-T5 XL, 120 of 2048 channels, in a column ``text``; the encoder is not here.
"""

from collections.abc import Collection

from smalti.interop._codebooks import USUAL
from smalti.interop._table import Rule
from smalti.interop._tokens import TokensFormat


class LlamaGenGPT(TokensFormat):
    """Checkpoints of LlamaGen's generators, c2i and t2i."""

    title = "LlamaGen's GPT"
    type = "gpt"
    orders = ((USUAL,),)

    def recognises(self, keys: Collection[str]) -> bool:
        """By one table of embeddings, beside those of classes or captions."""
        return "tok_embeddings.weight" in keys and any(key.startswith("cls_embedding.") for key in keys)

    def own_rules(self) -> list[Rule]:
        """The only codebook's."""
        return [Rule("tok_embeddings.weight", "embeddings.0.weight"), Rule("output.weight", "outputs.0.weight")]
