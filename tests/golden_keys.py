"""The goldens' state dicts under our key names, and the tiny models that they belong to."""

import re
from collections.abc import Mapping

from torch import Tensor

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks.gaussian import Gaussian
from smalti.bottlenecks.vector_quantizer import VectorQuantizer
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder

COMMON = [
    (r"^quant_conv\.", "bottleneck.projection."),
    (r"^post_quant_conv\.", "decoder.projection."),
    (r"^quantize\.embedding\.", "bottleneck.codebook."),
    (r"\.norm_out\.", ".head.norm."),
    (r"\.conv_out\.", ".head.conv."),
    (r"\.nin_shortcut\.", ".shortcut."),
    (r"\.proj_out\.", ".out."),
]
COMPVIS = [
    (r"\.mid\.block_1\.", ".middle.0."),
    (r"\.mid\.attn_1\.", ".middle.1."),
    (r"\.mid\.block_2\.", ".middle.2."),
    (r"\.(?:down|up)\.(\d+)\.block\.(\d+)\.", r".levels.\1.blocks.\2."),
    (r"\.(?:down|up)\.(\d+)\.attn\.(\d+)\.", r".levels.\1.attentions.\2."),
    (r"\.(?:down|up)\.(\d+)\.(?:down|up)sample\.", r".levels.\1.resample."),
]
LLAMAGEN = [
    (r"\.mid\.(\d)\.", r".middle.\1."),
    (r"\.conv_blocks\.(\d+)\.res\.(\d+)\.", r".levels.\1.blocks.\2."),
    (r"\.conv_blocks\.(\d+)\.attn\.(\d+)\.", r".levels.\1.attentions.\2."),
    (r"\.conv_blocks\.(\d+)\.(?:down|up)sample\.", r".levels.\1.resample."),
]


def compvis_key(key: str, levels: int) -> str:
    """latent-diffusion and taming name decoder levels by resolution; ours stand in the order of execution."""
    key = _rename(key, COMPVIS + COMMON)
    return re.sub(r"^decoder\.levels\.(\d+)\.", lambda m: f"decoder.levels.{levels - 1 - int(m[1])}.", key)


def llamagen_key(key: str) -> str:
    return _rename(key, LLAMAGEN + COMMON)


def _rename(key: str, rules: list[tuple[str, str]]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def load_golden(model: Autoencoder, state: Mapping[str, Tensor]) -> Autoencoder:
    """Loads every parameter from ``state`` (our keys); usage counts, which the goldens have not, stay as they are."""
    missing, unexpected = model.load_state_dict(dict(state), strict=False)
    assert not unexpected
    assert all(".window." in key for key in missing)
    return model


def compvis_tiny(bottleneck: Bottleneck, encoder_channels: int, z_channels: int) -> Autoencoder:
    """Backbone of ldm/kl_tiny and ldm/vq_tiny: 32 px, ch 32, ch_mult (1, 2), 1 block, attention at 16 px."""
    backbone = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention_levels": (1,)}
    encoder = ConvEncoder(**backbone, out_channels=encoder_channels)
    decoder = ConvDecoder(**backbone, latent_channels=bottleneck.latent_channels, z_channels=z_channels)
    return Autoencoder(encoder, bottleneck, decoder)


def kl_tiny(state: Mapping[str, Tensor]) -> Autoencoder:
    """ldm/kl_tiny in float64, from ldm/kl_tiny_state (loss.* entries are ignored)."""
    model = compvis_tiny(Gaussian(in_channels=8, latent_channels=4, sample="always"), 8, 4).double()
    return load_golden(model, {compvis_key(k, 2): v for k, v in state.items() if not k.startswith("loss.")})


def vq_tiny(state: Mapping[str, Tensor]) -> Autoencoder:
    """ldm/vq_tiny in float64, from ldm/vq_tiny_state (loss.* entries are ignored)."""
    model = compvis_tiny(VectorQuantizer(in_channels=8, codebook_size=16, code_channels=4), 8, 8).double()
    return load_golden(model, {compvis_key(k, 2): v for k, v in state.items() if not k.startswith("loss.")})


def llamagen_ds8(tensors: Mapping[str, Tensor]) -> Autoencoder:
    """fqgan/tokenizer_llamagen_ds8 in float32: ch 32, ch_mult (1, 1, 1, 1), z_channels 48, 64 unit codes of 8."""
    backbone = {"channels": 32, "multipliers": (1, 1, 1, 1), "attention_levels": (3,)}
    encoder = ConvEncoder(**backbone, out_channels=48)
    decoder = ConvDecoder(
        channels=32, multipliers=(1, 1, 1, 1), attention_levels=(3,), latent_channels=8, z_channels=48
    )
    bottleneck = VectorQuantizer(in_channels=48, codebook_size=64, code_channels=8, normalize=True)
    state = {llamagen_key(k.removeprefix("model.")): v for k, v in tensors.items() if k.startswith("model.")}
    return load_golden(Autoencoder(encoder, bottleneck, decoder), state)
