"""What the formats of generators of tokens share: LlamaGen's GPT, and FAR, which is built like it.

Tensors show neither the number of heads nor the grid, whose table of positions is computed and not stored.
"""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from smalti.interop import Format, ImportOptions, Layout
from smalti.interop._files import write_state
from smalti.interop._table import Note, Rule, Table
from smalti.nn.causal import published_hidden
from smalti.registry import UserError

BLOCK = {
    "attention.wqkv": "attention.qkv",
    "attention.wo": "attention.out",
    "feed_forward.w1": "mlp.gate",
    "feed_forward.w3": "mlp.up",
    "feed_forward.w2": "mlp.down",
    "attention_norm": "norm1",
    "ffn_norm": "norm2",
}
DROPPED = (
    Note(r"(layers|ar_head)\.\d+\.attention\.kv_cache\.", "keys and values of the last sampling"),
    Note(r"(freqs_cis|causal_mask)$", "a table that is computed"),
)
HEADS = {3200: 32}  # of LlamaGen's 3B; all others have heads of 64 channels
HEAD_WIDTH, GRID = 64, 16


class TokensFormat(Format):
    """Base of the formats of generators of tokens; ``type`` is the model's, ``names`` those of its codebooks."""

    type: ClassVar[str]
    orders: ClassVar[tuple[tuple[str, ...], ...]]
    asks = frozenset({"heads", "grid"})

    def layout(self, keys: Collection[str]) -> Layout:
        """No levels."""
        return Layout(levels=1)

    def own_rules(self) -> list[Rule]:
        """The rules beyond those that both formats have."""
        return []

    def table(self, layout: Layout) -> Table:
        """The key table."""
        common = {
            "cls_embedding.embedding_table.weight": "condition.table.weight",
            "cls_embedding.uncond_embedding": "condition.null",
            "cls_embedding.cap_proj.fc1.weight": "condition.projection.0.weight",
            "cls_embedding.cap_proj.fc2.weight": "condition.projection.2.weight",
            "norm.weight": "norm.weight",
        }
        rules = [Rule(theirs, ours) for theirs, ours in common.items()]
        return Table([*rules, *block_rules("layers", "blocks"), *self.own_rules()], DROPPED)

    def infer(self, shapes: Mapping[str, tuple[int, ...]], options: ImportOptions) -> dict[str, Any]:
        """All sizes but the number of heads and the grid.

        Raises:
            UserError: if a tensor that shows a size is missing, or there is another number of codebooks.
        """
        text = "condition.null" in shapes
        asked = ["norm.weight", "blocks.0.attention.qkv.weight", "blocks.0.mlp.gate.weight", "embeddings.0.weight"]
        missing = [name for name in [*asked, *(() if text else ("condition.table.weight",))] if not shapes.get(name)]
        if missing:
            table = self.table(Layout(levels=1))
            lines = "\n".join(f"  missing {(table.theirs(name) or (name,))[0]}" for name in missing)
            raise UserError(f"its sizes cannot be inferred:\n{lines}")
        width = shapes["norm.weight"][0]
        heads = options.heads or HEADS.get(width, max(width // HEAD_WIDTH, 1))
        rows, hidden = (shapes[f"blocks.0.{name}.weight"][0] for name in ("attention.qkv", "mlp.gate"))
        kv_heads = (rows // max(width // heads, 1) - heads) // 2
        found = {
            "type": self.type,
            "codebooks": self._codebooks(shapes),
            "grid": [options.grid or GRID] * 2,
            "num_classes": 0 if text else shapes["condition.table.weight"][0] - 1,
            "width": width,
            "depth": _count(shapes, "blocks"),
            "heads": heads,
            "kv_heads": None if kv_heads == heads else kv_heads,
            "hidden": None if hidden == published_hidden(width) else hidden,
        }
        if text:
            found["text_length"], found["text_width"] = shapes["condition.null"]
        return found

    def _codebooks(self, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        sizes = [shapes[f"embeddings.{number}.weight"][0] for number in range(_count(shapes, "embeddings"))]
        names = next((order for order in self.orders if len(order) == len(sizes)), None)
        if names is None:
            known = " or ".join(str(len(order)) for order in self.orders)
            raise UserError(f"it has {len(sizes)} codebooks: expected {known}")
        return dict(zip(names, sizes, strict=True))

    def misfit(self, config: Mapping[str, Any]) -> str | None:
        """Why a model of ours is none of these."""
        return None if config["type"] == self.type else f"it is of the type {config['type']!r}, expected {self.type!r}"

    def as_read(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A configuration with the codebooks' usual names."""
        sizes = list(config["codebooks"].values())
        names = next((order for order in self.orders if len(order) == len(sizes)), tuple(config["codebooks"]))
        return {**config, "codebooks": dict(zip(names, sizes, strict=True))}

    def unseen(self, config: Mapping[str, Any]) -> ImportOptions:
        """The heads and the side of the grid."""
        return ImportOptions(heads=config["heads"], grid=config["grid"][0])

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """What the originals' constructors cannot be told."""
        reasons = []
        height, width = config["grid"]
        if height != width:
            reasons.append(f"a grid of {height} x {width}: expected a square")
        if config["class_position"] != "zeroed":
            reasons.append(f"class_position={config['class_position']!r}: expected 'zeroed'")
        if config["hidden"] not in {None, published_hidden(config["width"])}:
            reasons.append(f"hidden={config['hidden']}: expected {published_hidden(config['width'])}")
        if len(config["codebooks"]) not in {len(order) for order in self.orders}:
            known = " or ".join(str(len(order)) for order in self.orders)
            reasons.append(f"{len(config['codebooks'])} codebooks: expected {known}")
        return reasons

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """The numbers for which the file is no witness."""
        (height, width), heads = config["grid"], config["heads"]
        return [
            f"its grid is taken to be {height} x {width} (--grid), its attention to have {heads} heads (--heads); no "
            "file shows them"
        ]

    def write(self, path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """A state dict under ``model``; bare in a safetensors file."""
        write_state(path, state, "model")


def block_rules(theirs: str, ours: str) -> list[Rule]:
    """The rules of a stack of blocks."""
    return [
        Rule(f"{theirs}.{{block}}.{there}.weight", f"{ours}.{{block}}.{here}.weight") for there, here in BLOCK.items()
    ]


def count_blocks(shapes: Mapping[str, tuple[int, ...]], stack: str) -> int:
    """The number of blocks of a stack, or of codebooks of a list; at least 1."""
    return max(_count(shapes, stack), 1)


def _count(shapes: Mapping[str, tuple[int, ...]], stack: str) -> int:
    numbers = [int(match[1]) for name in shapes if (match := re.match(rf"{stack}\.([0-9]+)\.", name))]
    return len(set(numbers))
