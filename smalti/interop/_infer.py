"""Sizes of a network from its tensors, under our names: one inference for every format.

Widths are read from biases and norms, which have one axis: a kernel that was transposed is then found as such.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from smalti.interop import Layout
from smalti.interop._codebooks import USUAL
from smalti.interop._table import Shape, Table
from smalti.registry import UserError

Config = dict[str, Any]


class Shapes:
    """Shapes by our names; what is asked for and missing is noted under the foreign name.

    Args:
        shapes: name -> shape.
        table: of the format.
        quantized: whether anything of a codebook is there.
    """

    def __init__(self, shapes: Mapping[str, Shape], table: Table, quantized: bool) -> None:
        self.shapes, self.table, self.quantized = shapes, table, quantized
        self.missing: list[str] = []

    def length(self, name: str) -> int:
        """Length of a bias or norm; 1 if it is missing, which is noted."""
        if name in self.shapes:
            return math.prod(self.shapes[name])
        found = self.table.theirs(name)
        self.missing.append(found[0] if found else name)
        return 1

    def rows(self, name: str, width: int) -> int:
        """Rows of a table with ``width`` columns, however it is turned."""
        return self.length(name) // max(width, 1)

    def numbers(self, pattern: str) -> set[int]:
        """All numbers that stand in the place of the group of ``pattern``, at the beginning of a name."""
        return {int(match[1]) for name in self.shapes if (match := re.match(pattern, name))}

    def count(self, pattern: str) -> int:
        """One more than the largest of those numbers."""
        return max(self.numbers(pattern), default=-1) + 1

    def has(self, name: str) -> bool:
        """Whether there is a tensor whose name begins so."""
        return any(key.startswith(name) for key in self.shapes)

    def names(self, pattern: str) -> list[str]:
        """The words in the place of the group of ``pattern``, in order of appearance."""
        return list(dict.fromkeys(match[1] for name in self.shapes if (match := re.match(pattern, name))))


def infer(shapes: Shapes, layout: Layout, heads: int) -> Config:
    """The configuration of an autoencoder, ``{type: autoencoder, ...}``.

    Args:
        shapes: of its tensors.
        layout: levels and middles.
        heads: attention heads of its transformers, which tensors do not show.

    Raises:
        UserError: if widths are no multiples of the first.
    """
    encoder = _encoder(shapes, layout)
    width = encoder["channels"] * encoder["multipliers"][-1]
    bottleneck = _bottleneck(shapes, encoder["out_channels"] or width, heads)
    config = {
        "type": "autoencoder",
        "encoder": encoder,
        "bottleneck": bottleneck,
        "decoder": _decoder(shapes, layout, encoder["channels"], _latent_channels(bottleneck)),
    }
    found = {name: _head(shapes, name, heads) for name in shapes.names(r"heads\.(\w+)\.")}
    return {**config, "heads": found} if found else config


def _encoder(shapes: Shapes, layout: Layout) -> Config:
    channels = shapes.length("encoder.conv_in.bias")
    widths = [shapes.length(f"encoder.levels.{level}.blocks.0.conv1.bias") for level in range(layout.levels)]
    return {
        "type": "conv",
        "image_channels": shapes.length("decoder.head.conv.bias"),
        "channels": channels,
        "multipliers": _multipliers(widths, channels, "encoder"),
        "blocks": shapes.count(r"encoder\.levels\.[0-9]+\.blocks\.([0-9]+)\."),
        "attention_levels": sorted(shapes.numbers(r"encoder\.levels\.([0-9]+)\.attentions\.")),
        "middle_attention": layout.encoder_attention,
        "out_channels": None
        if shapes.names(r"(bottleneck)\.branches\.\w+\.adapter\.")
        else shapes.length("encoder.head.conv.bias"),
    }


def _decoder(shapes: Shapes, layout: Layout, channels: int, latent_channels: int) -> Config:
    last = layout.levels - 1
    widths = [shapes.length(f"decoder.levels.{last - level}.blocks.0.conv1.bias") for level in range(layout.levels)]
    if any(width % channels for width in widths):
        channels = math.gcd(*widths)
    attention = shapes.numbers(r"decoder\.levels\.([0-9]+)\.attentions\.")
    return {
        "type": "conv",
        "image_channels": shapes.length("decoder.head.conv.bias"),
        "latent_channels": latent_channels,
        "z_channels": shapes.length("decoder.projection.bias") if shapes.has("decoder.projection.") else None,
        "channels": channels,
        "multipliers": _multipliers(widths, channels, "decoder"),
        "blocks": shapes.count(r"decoder\.levels\.[0-9]+\.blocks\.([0-9]+)\.") - 1,
        "attention_levels": sorted(last - level for level in attention),
        "middle_attention": layout.decoder_attention,
        **({"norm": "spatial"} if layout.spatial else {}),
    }


def _multipliers(widths: list[int], channels: int, part: str) -> list[int]:
    # 1 is what a missing tensor counts as; it is reported with the others.
    if any(width % channels for width in widths if width > 1):
        listed = ", ".join(map(str, widths))
        raise UserError(f"the {part}'s levels have the widths {listed}: expected multiples of the first, {channels}")
    return [max(width // channels, 1) for width in widths]


def _bottleneck(shapes: Shapes, in_channels: int, heads: int) -> Config:
    if shapes.quantized:
        names = shapes.names(r"bottleneck\.branches\.(\w+)\.") or [USUAL]
        branches = {name: _branch(shapes, f"bottleneck.branches.{name}", in_channels, heads) for name in names}
        return {"type": "tokens", "in_channels": in_channels, "codebooks": branches}
    projected = shapes.has("bottleneck.projection.")
    width = shapes.length("bottleneck.projection.bias") if projected else in_channels
    common = {"in_channels": in_channels, "projection": projected}
    return {"type": "gaussian", **common, "latent_channels": max(width // 2, 1)}


def _branch(shapes: Shapes, place: str, in_channels: int, heads: int) -> Config:
    adapter = _adapter(shapes, f"{place}.adapter", in_channels, heads) if shapes.has(f"{place}.adapter.") else None
    projected = shapes.has(f"{place}.projection.") or adapter is not None
    channels = shapes.length(f"{place}.projection.bias") if projected else in_channels
    drawn = shapes.has(f"{place}.quantizer.logits.")
    quantizer = {
        "type": "gumbel" if drawn else "nearest",
        "size": shapes.rows(f"{place}.quantizer.weight", channels),
        "channels": channels,
    }
    return {"quantizer": quantizer, "adapter": adapter, "projection": projected}


def _adapter(shapes: Shapes, place: str, in_channels: int, heads: int) -> Config:
    adapter = {**_transformer(shapes, place, heads), "out_channels": shapes.length(f"{place}.conv.bias")}
    return {**adapter, "width": None} if adapter["width"] == in_channels else adapter


def _head(shapes: Shapes, name: str, heads: int) -> Config:
    return {"codebook": name, **_transformer(shapes, f"heads.{name}", heads)}


def _transformer(shapes: Shapes, place: str, heads: int) -> Config:
    width = shapes.length(f"{place}.norm_in.bias")
    rows = shapes.rows(f"{place}.positions.table", width)
    return {
        "width": width,
        "grid": max(math.isqrt(rows), 1),
        "layers": max(shapes.count(rf"{re.escape(place)}\.blocks\.([0-9]+)\."), 1),
        "heads": heads,
        "mlp_ratio": shapes.length(f"{place}.blocks.0.mlp.0.bias") / width,
    }


def _latent_channels(bottleneck: Config) -> int:
    if "codebooks" in bottleneck:
        return sum(branch["quantizer"]["channels"] for branch in bottleneck["codebooks"].values())
    channels: int = bottleneck["latent_channels"]
    return channels
