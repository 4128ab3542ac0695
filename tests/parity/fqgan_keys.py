"""FQGAN's state dicts under our key names, and the tiny tokenizers of the goldens."""

import re
from collections.abc import Mapping

from torch import Tensor

from smalti.bottlenecks._adapter import AdapterOptions
from smalti.bottlenecks.tokens import Tokens
from smalti.models._heads import HeadOptions
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from tests.golden_keys import llamagen_key, load_golden
from tests.quantized import branch

# our codebook -> (adapter, suffix of norm_out_ / conv_out_ / quant_conv_ / quantize_) there
BRANCHES = {
    "dual": {"visual": ("visual_head", "vis"), "semantic": ("semantic_head", "sem")},
    "triple": {
        "visual": ("visual_head", "vis"),
        "mid": ("semantic_head_mid", "sem_mid"),
        "high": ("semantic_head_high", "sem_high"),
    },
}
HEADS = {"dual": {"semantic": "feat_pred_head"}, "triple": {"mid": "mid_sem_feat_pred", "high": "high_sem_feat_pred"}}
BLOCK = [
    (r"\btransformer\.(\d+)\.", r"blocks.\1."),
    (r"\.attn\.in_proj_(weight|bias)$", r".attention.qkv.\1"),
    (r"\.attn\.out_proj\.", ".attention.out."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.0."),
    (r"\.mlp\.c_proj\.", ".mlp.2."),
    (r"\bln_pre\.", "norm_in."),
    (r"\bln_post\.", "norm_out."),
    (r"\bpositional_embedding$", "positions.table"),
]


def fqgan_state(state: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """All entries of an original state dict under our names; a head's position table is cut into class and grid."""
    renamed: dict[str, Tensor] = {}
    for key, value in state.items():
        new = fqgan_key(key, kind)
        if new.startswith("heads.") and new.endswith("positions.table"):
            renamed[new.replace("positions.table", "class_position")] = value[:1]
            value = value[1:]  # noqa: PLW2901
        renamed[new] = value
    return renamed


def fqgan_key(key: str, kind: str) -> str:
    for ours, (adapter, suffix) in BRANCHES[kind].items():
        place = f"bottleneck.branches.{ours}."
        key = re.sub(rf"^encoder\.{adapter}\.0\.", f"{place}adapter.", key)
        key = re.sub(rf"^encoder\.norm_out_{suffix}\.", f"{place}adapter.norm.", key)
        key = re.sub(rf"^encoder\.conv_out_{suffix}\.", f"{place}adapter.conv.", key)
        key = re.sub(rf"^quant_conv_{suffix}\.", f"{place}projection.", key)
        key = re.sub(rf"^quantize_{suffix}\.embedding\.", f"{place}quantizer.", key)
    for ours, head in HEADS[kind].items():
        key = re.sub(rf"^{head}\.", f"heads.{ours}.", key)
    key = re.sub(r"\.upscale\.", ".entrance.", key)
    key = re.sub(r"\.class_embedding$", ".class_token", key)
    if key.startswith(("bottleneck.", "heads.")):
        for pattern, replacement in BLOCK:
            key = re.sub(pattern, replacement, key)
        return key
    return llamagen_key(key)


def tiny_tokenizer(tensors: Mapping[str, Tensor], kind: str, multipliers: tuple[int, ...]) -> Autoencoder:
    """fqgan/tokenizer_{dual,triple}_ds{8,16}: 64 px, ch 32, z_channels 48, 64 unit codes of 8, adapter 2 layers."""
    grid = 64 // 2 ** (len(multipliers) - 1)
    backbone = {"channels": 32, "multipliers": multipliers, "attention_levels": (len(multipliers) - 1,)}
    adapter = AdapterOptions(out_channels=48, grid=grid, layers=2, heads=8)
    encoder = ConvEncoder(**backbone, out_channels=None)
    codebooks = {name: branch(64, 8, normalize=True, adapter=adapter) for name in BRANCHES[kind]}
    bottleneck = Tokens(in_channels=encoder.out_channels, codebooks=codebooks)
    decoder = ConvDecoder(**backbone, latent_channels=bottleneck.latent_channels, z_channels=48)
    widths = {"semantic": 32, "mid": 24, "high": 40}
    heads = {name: HeadOptions(codebook=name, width=widths[name], grid=grid, layers=2, heads=8) for name in HEADS[kind]}
    model = Autoencoder(encoder, bottleneck, decoder, heads)
    state = {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}
    return load_golden(model, fqgan_state(state, kind))
