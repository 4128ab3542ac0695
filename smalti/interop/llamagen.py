"""LlamaGen's tokenizers VQ-8 and VQ-16 (Sun et al., arXiv:2406.06525): one codebook of unit vectors."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.interop import Format, ImportOptions, Layout
from smalti.interop._backbone import LLAMAGEN, OWN, bottleneck_rules
from smalti.interop._codebooks import are_unit, quantizers, reasons_against
from smalti.interop._files import write_state
from smalti.interop._table import Note, Table

USAGE_RING = 65536
DROPPED = (Note(r"quantize(_\w+)?\.codebook_used$", "usage counter of the original's training"),)


class LlamaGen(Format):
    """Checkpoints of LlamaGen's tokenizer."""

    title = "LlamaGen"

    def recognises(self, keys: Collection[str]) -> bool:
        """By ``encoder.conv_blocks`` with a single quantizer."""
        return any(key.startswith("encoder.conv_blocks.") for key in keys) and not is_factorized(keys)

    def layout(self, keys: Collection[str]) -> Layout:
        """Levels and middles."""
        return LLAMAGEN.layout(keys)

    def table(self, layout: Layout) -> Table:
        """The key table."""
        constants = {"quantize.codebook_used": torch.zeros(USAGE_RING)}
        return Table([*LLAMAGEN.rules(layout), *bottleneck_rules(layout)], DROPPED, OWN, layout.levels, constants)

    def complete(
        self, config: dict[str, Any], beside: Mapping[str, Any], options: ImportOptions, where: str
    ) -> dict[str, Any]:
        """Codes are compared as unit vectors; no published tokenizer does otherwise."""
        for quantizer in quantizers(config).values():
            quantizer["normalize"] = True
        return config

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """What its constructor cannot be told."""
        reasons = trunk_reasons(config) + reasons_against(config)
        return reasons if are_unit(config) else [*reasons, "codes not compared as unit vectors"]

    def write(self, path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """A state dict under ``model``; bare in a safetensors file."""
        write_state(path, state, "model")


def is_factorized(keys: Collection[str]) -> bool:
    """Whether there are branches for several codebooks."""
    return any(key.startswith(("quantize_", "quant_conv_")) for key in keys)


def trunk_reasons(config: Mapping[str, Any]) -> list[str]:
    """What LlamaGen's and FQGAN's encoder and decoder have fixed."""
    reasons = []
    for part in ("encoder", "decoder"):
        network = config[part]
        if list(network["attention_levels"]) != [len(network["multipliers"]) - 1]:
            reasons.append(f"{part}: attention not exactly at the last level")
        if network["blocks"] != 2:
            reasons.append(f"{part}: {network['blocks']} blocks per level, expected 2")
        if network["groups"] != 32:
            reasons.append(f"{part}: groups other than 32")
        if network["norm"] == "spatial":
            reasons.append(f"{part}: norm='spatial', expected 'group'")
        if not network["middle_attention"]:
            reasons.append(f"{part}: no attention in the middle")
    return reasons
