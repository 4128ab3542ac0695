"""FQGAN's tokenizers, dual and triple, VQ-8 and VQ-16 (Bai et al., arXiv:2411.16681), with or without feature heads.

The originals write the semantic codebook before the visual one and concatenate them the other way round; here the
visual one comes first, as in the latent.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smalti.interop import Format, ImportOptions, Layout
from smalti.interop._backbone import LLAMAGEN, OWN
from smalti.interop._codebooks import are_unit, quantizers
from smalti.interop._files import write_state
from smalti.interop._table import Rule, Table, layer
from smalti.interop.llamagen import DROPPED, USAGE_RING, is_factorized, trunk_reasons

# Our codebook -> (adapter, suffix of norm_out_, conv_out_, quant_conv_ and quantize_) there.
BRANCHES = {
    "visual": ("visual_head", "vis"),
    "semantic": ("semantic_head", "sem"),
    "mid": ("semantic_head_mid", "sem_mid"),
    "high": ("semantic_head_high", "sem_high"),
}
# Our head, named after its codebook -> head there.
HEADS = {"semantic": "feat_pred_head", "mid": "mid_sem_feat_pred", "high": "high_sem_feat_pred"}
ORDERS = (("visual", "semantic"), ("visual", "mid", "high"))


class FQGAN(Format):
    """Checkpoints of FQGAN's tokenizers."""

    title = "FQGAN"
    asks = frozenset({"heads"})

    def recognises(self, keys: Collection[str]) -> bool:
        """By ``encoder.conv_blocks`` with several quantizers."""
        return any(key.startswith("encoder.conv_blocks.") for key in keys) and is_factorized(keys)

    def layout(self, keys: Collection[str]) -> Layout:
        """Levels and middles."""
        return LLAMAGEN.layout(keys)

    def table(self, layout: Layout) -> Table:
        """The key table; of both variants, whose names do not collide."""
        rules = [*LLAMAGEN.rules(layout, encoder_head=False), *layer("post_quant_conv", "decoder.projection")]
        constants = {}
        for name, (adapter, suffix) in BRANCHES.items():
            rules += _branch(f"bottleneck.branches.{name}", f"encoder.{adapter}.0", suffix)
            constants[f"quantize_{suffix}.codebook_used"] = torch.zeros(USAGE_RING)
        for name, head in HEADS.items():
            rules += _head(f"heads.{name}", head)
        return Table(rules, DROPPED, OWN, layout.levels, constants)

    def complete(
        self, config: dict[str, Any], beside: Mapping[str, Any], options: ImportOptions, where: str
    ) -> dict[str, Any]:
        """Unit codes, as in everything published, and the order of the codebooks in the latent."""
        codebooks = config["bottleneck"]["codebooks"]
        config["bottleneck"]["codebooks"] = {
            name: {**codebooks[name], "quantizer": {**codebooks[name]["quantizer"], "normalize": True}}
            for name in BRANCHES
            if name in codebooks
        }
        return config

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """What its constructor cannot be told."""
        reasons = trunk_reasons(config)
        codebooks = quantizers(config)
        if tuple(codebooks) not in ORDERS:
            known = " or ".join(", ".join(order) for order in ORDERS)
            reasons.append(f"codebooks {', '.join(codebooks) or 'one'}: expected, in this order, {known}")
        if not are_unit(config):
            reasons.append("codes not compared as unit vectors")
        return reasons

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """The number of attention heads, for which the file is no witness."""
        heads = next(iter(config["bottleneck"]["codebooks"].values()))["adapter"]["heads"]
        return [f"its transformers are taken to have {heads} attention heads (--heads); no file shows them"]

    def write(self, path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """A state dict under ``model``; bare in a safetensors file."""
        write_state(path, state, "model")


def _branch(ours: str, adapter: str, suffix: str) -> list[Rule]:
    return [
        *_transformer(adapter, f"{ours}.adapter"),
        Rule(f"{adapter}.positional_embedding", f"{ours}.adapter.positions.table"),
        *layer(f"encoder.norm_out_{suffix}", f"{ours}.adapter.norm"),
        *layer(f"encoder.conv_out_{suffix}", f"{ours}.adapter.conv"),
        *layer(f"quant_conv_{suffix}", f"{ours}.projection"),
        Rule(f"quantize_{suffix}.embedding.weight", f"{ours}.quantizer.weight"),
    ]


def _head(ours: str, head: str) -> list[Rule]:
    return [
        *_transformer(head, ours),
        *layer(head, ours, {"upscale.0": "entrance.0", "upscale.2": "entrance.2"}),
        Rule(f"{head}.class_embedding", f"{ours}.class_token"),
        Rule(f"{head}.positional_embedding", f"{ours}.class_position", "first"),
        Rule(f"{head}.positional_embedding", f"{ours}.positions.table", "rest"),
    ]


def _transformer(there: str, ours: str) -> list[Rule]:
    block, own = f"{there}.transformer.{{block}}", f"{ours}.blocks.{{block}}"
    parts = {"ln_1": "norm1", "ln_2": "norm2", "mlp.c_fc": "mlp.0", "mlp.c_proj": "mlp.2"}
    return [
        *layer(there, ours, {"ln_pre": "norm_in", "ln_post": "norm_out"}),
        *layer(block, own, {**parts, "attn.out_proj": "attention.out"}),
        Rule(f"{block}.attn.in_proj_weight", f"{own}.attention.qkv.weight"),
        Rule(f"{block}.attn.in_proj_bias", f"{own}.attention.qkv.bias"),
    ]
