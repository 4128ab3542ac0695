"""The goldens' state dicts under our key names, and the tiny models that they belong to."""

from collections.abc import Mapping

from torch import Tensor

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks.gaussian import Gaussian
from smalti.interop import Layout
from smalti.interop._codebooks import USUAL
from smalti.interop._table import Table
from smalti.interop.latent_diffusion import LatentDiffusion
from smalti.interop.llamagen import LlamaGen
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from tests.quantized import one_codebook


def compvis_key(key: str, levels: int, codebook: str | None = None) -> str:
    """Our name for a key of latent-diffusion, or with a codebook of taming."""
    return _ours(LatentDiffusion().table(Layout(levels=levels, codebook=codebook)), key)


def llamagen_key(key: str) -> str:
    """Our name for a key of LlamaGen."""
    return _ours(LlamaGen().table(Layout(levels=1, codebook=USUAL)), key)


def _ours(table: Table, key: str) -> str:
    [(name, _)] = table.ours(key)
    return name


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
    model = compvis_tiny(one_codebook(8, 16, 4), 8, 8).double()
    return load_golden(model, {compvis_key(k, 2, USUAL): v for k, v in state.items() if not k.startswith("loss.")})


def llamagen_ds8(tensors: Mapping[str, Tensor]) -> Autoencoder:
    """fqgan/tokenizer_llamagen_ds8 in float32: ch 32, ch_mult (1, 1, 1, 1), z_channels 48, 64 unit codes of 8."""
    backbone = {"channels": 32, "multipliers": (1, 1, 1, 1), "attention_levels": (3,)}
    encoder = ConvEncoder(**backbone, out_channels=48)
    decoder = ConvDecoder(
        channels=32, multipliers=(1, 1, 1, 1), attention_levels=(3,), latent_channels=8, z_channels=48
    )
    bottleneck = one_codebook(48, 64, 8, normalize=True)
    state = {llamagen_key(k.removeprefix("model.")): v for k, v in tensors.items() if k.startswith("model.")}
    return load_golden(Autoencoder(encoder, bottleneck, decoder), state)
