"""FAR, FQGAN's generators (Bai et al., arXiv:2411.16681), dual and triple, B and L."""

from collections.abc import Collection, Mapping
from typing import Any

from smalti.interop import ImportOptions
from smalti.interop._table import Rule
from smalti.interop._tokens import TokensFormat, block_rules, count_blocks
from smalti.interop.fqgan import ORDERS


class FAR(TokensFormat):
    """Checkpoints of FAR for two or three codebooks."""

    title = "FAR (FQGAN)"
    type = "far"
    orders = ORDERS

    def recognises(self, keys: Collection[str]) -> bool:
        """By the table of embeddings of the first of several codebooks."""
        return "tok_embeddings_1.weight" in keys

    def own_rules(self) -> list[Rule]:
        """The codebooks', numbered from 1, and the head's."""
        numbers = range(max(map(len, ORDERS)))
        return [
            *(Rule(f"tok_embeddings_{number + 1}.weight", f"embeddings.{number}.weight") for number in numbers),
            *(Rule(f"output_{number + 1}.weight", f"outputs.{number}.weight") for number in numbers),
            *(Rule(f"aggregation_layer.{leaf}", f"aggregation.{leaf}") for leaf in ("weight", "bias")),
            *block_rules("ar_head", "head"),
        ]

    def infer(self, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions) -> dict[str, Any]:
        """All sizes but the number of heads and the grid."""
        return {**super().infer(shapes, options), "head_depth": count_blocks(shapes, "head")}

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """What its constructor cannot be told."""
        captions = ["conditioned on captions: FAR takes classes"] if config["text_width"] else []
        return super().unsupported(config) + captions
