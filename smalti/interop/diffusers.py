"""diffusers' AutoencoderKL and VQModel: a folder with ``config.json``, or the weights file alone."""

from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smalti.interop import Format, ImportOptions, Layout, Twin
from smalti.interop._backbone import DIFFUSERS, OWN, bottleneck_rules, layout_of_ours
from smalti.interop._codebooks import are_unit, only_quantizer, reasons_against
from smalti.interop._table import Table, to_theirs
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError
from smalti.writing import to_json, whole, write_whole

KL, VQ = "AutoencoderKL", "VQModel"
WEIGHTS = "diffusion_pytorch_model.safetensors"
# Classes with the encoder of AutoencoderKL: what keys of the rest begin with -> what it is.
RELATIVES = (
    ("decoder.condition_encoder.", "AsymmetricAutoencoderKL, whose decoder sees a mask"),
    ("decoder_unet.", "ConsistencyDecoderVAE, whose decoder is a consistency model"),
    ("bn.running_", "AutoencoderKLFlux2, which normalises patches of its latents"),
)
SPATIAL_GROUPS = 32  # of norms that the latent has a part in, whatever norm_num_groups says
DEFAULT_SCALE = 0.18215  # of AutoencoderKL, where a configuration says nothing


class Diffusers(Format):
    """Autoencoders of the diffusers library."""

    title = "diffusers AutoencoderKL / VQModel"
    suffixes = ()
    asks = frozenset({"scaling_factor"})

    def recognises(self, keys: Collection[str]) -> bool:
        """By ``encoder.down_blocks.0.resnets``."""
        return any(key.startswith("encoder.down_blocks.0.resnets.") for key in keys)

    def refuses(self, keys: Collection[str]) -> str | None:
        """Video autoencoders and other classes that encode alike."""
        if any(".temporal_res_block." in key or ".conv1.conv." in key for key in keys):
            return "it is an autoencoder of videos"
        for beginning, what in RELATIVES:
            if any(key.startswith(beginning) for key in keys):
                return f"it is {what}"
        return None

    def layout(self, keys: Collection[str]) -> Layout:
        """Levels and middles."""
        return DIFFUSERS.layout(keys)

    def table(self, layout: Layout) -> Table:
        """The key table."""
        return Table([*DIFFUSERS.rules(layout), *bottleneck_rules(layout)], (), OWN, layout.levels)

    def complete(
        self, config: dict[str, Any], beside: Mapping[str, Any], options: ImportOptions, where: str
    ) -> dict[str, Any]:
        """Groups and the scale of the latents.

        Raises:
            UserError: if the configuration beside the weights contradicts them, or asks for what smalti has not.
        """
        there = beside if is_config(beside) else {}
        groups = there.get("norm_num_groups", 32)
        config["encoder"]["groups"] = groups
        config["decoder"]["groups"] = SPATIAL_GROUPS if is_spatial(config) else groups
        _check(there, config, where)
        latents = _latents(there, options.scaling_factor, is_kl=config["bottleneck"]["type"] == "gaussian")
        return {**config, "latents": latents} if latents else config

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """What its configuration cannot say: one list of widths, blocks and attentions for both sides."""
        encoder, decoder, bottleneck = config["encoder"], config["decoder"], config["bottleneck"]
        reasons = [
            f"{name} {_listed(encoder[name])} of the encoder, {_listed(decoder[name])} of the decoder: expected equal"
            for name in ("multipliers", "channels", "blocks", "attention_levels", "middle_attention", "groups")
            if _listed(encoder[name]) != _listed(decoder[name]) and not (name == "groups" and is_spatial(config))
        ]
        if is_spatial(config):
            reasons += _against_spatial(decoder, bottleneck)
        if encoder["multipliers"][0] != 1:
            reasons.append(f"the first level is {encoder['multipliers'][0]} times as wide as the first convolution")
        if bottleneck["type"] == "gaussian":
            z_channels, latent = decoder["z_channels"], bottleneck["latent_channels"]
            if encoder["out_channels"] != 2 * latent or z_channels not in {None, latent}:
                reasons.append(
                    f"KL with {latent} latent channels between {encoder['out_channels']} and {z_channels}: expected "
                    f"{2 * latent} and {latent}, AutoencoderKL has one number for all"
                )
        elif encoder["out_channels"] != decoder["z_channels"]:
            reasons.append(f"z of {encoder['out_channels']} and {decoder['z_channels']} channels: expected equal")
        reasons += reasons_against(config)
        if are_unit(config):
            reasons.append("codes compared as unit vectors")
        return reasons

    def write(self, path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """A folder that ``from_pretrained`` reads."""
        path.mkdir(parents=True, exist_ok=True)
        own = {key: value.detach().cpu().clone().contiguous() for key, value in state.items()}
        with whole(path / WEIGHTS) as unfinished:
            save_file(own, unfinished, metadata={"format": "pt"})
        write_whole(path / "config.json", to_json(config_there(config), indent=2) + "\n")

    def twin(self, model: nn.Module, config: Mapping[str, Any], beside: Mapping[str, Any]) -> Twin | None:
        """The network in diffusers itself, by the source's own configuration if there is one; None: not installed."""
        if find_spec("diffusers") is None or self.unsupported(config):
            return None
        there = config_there(config)
        if is_config(beside):
            # With lookup_from_codebook, as of aMUSEd, it decodes indices alone, and no latents.
            there |= {key: value for key, value in beside.items() if key[:1] != "_" and key != "lookup_from_codebook"}
        state = model.state_dict()
        translated = to_theirs(state, self.table(layout_of_ours(state)))
        return None if translated.problems else DiffusersTwin(translated.state, there)


class DiffusersTwin(nn.Module):
    """An autoencoder of diffusers behind two functions.

    Args:
        state: under diffusers' names.
        config: of AutoencoderKL or VQModel, with ``_class_name``.
    """

    def __init__(self, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        super().__init__()
        import diffusers

        cls = getattr(diffusers, str(config["_class_name"]))
        with on_meta_device():
            self.network = cls.from_config({key: value for key, value in config.items() if not key.startswith("_")})
        self.network.load_state_dict(dict(state), assign=True)
        self.network.eval()
        self.is_kl = config["_class_name"] == KL

    def encode(self, images: Tensor) -> Tensor:
        """Moments (B, 2 C, h, w) of a KL autoencoder, what a VQ one quantizes (B, d, h, w)."""
        found = self.network.encode(images)
        if self.is_kl:
            return torch.cat([found.latent_dist.mean, found.latent_dist.logvar], dim=1)
        encoded: Tensor = found.latents
        return encoded

    def decode(self, latent: Tensor) -> Tensor:
        """Images (B, 3, H, W) of a latent that is quantized already."""
        images: Tensor = self.network.decode(latent, **({} if self.is_kl else {"force_not_quantize": True})).sample
        return images


def is_config(beside: Mapping[str, Any]) -> bool:
    """Whether a mapping is the configuration of an autoencoder of diffusers."""
    return "block_out_channels" in beside and "down_block_types" in beside


def is_spatial(config: Mapping[str, Any]) -> bool:
    """Whether the decoder is normalised by the latent (MoVQ)."""
    return bool(config["decoder"].get("norm") == "spatial")


def _against_spatial(decoder: Mapping[str, Any], bottleneck: Mapping[str, Any]) -> list[str]:
    """Why VQModel cannot express a decoder that is normalised by the latent."""
    reasons = []
    if bottleneck["type"] == "gaussian":
        reasons.append("norm='spatial' of the decoder behind a KL bottleneck: expected a codebook")
    if decoder["latent_channels"] != decoder["z_channels"]:
        reasons.append(
            f"norm='spatial' with codes of {decoder['latent_channels']} channels and z of {decoder['z_channels']}: "
            "expected equal"
        )
    if decoder["groups"] != SPATIAL_GROUPS:
        reasons.append(f"norm='spatial' with {decoder['groups']} groups: expected {SPATIAL_GROUPS}")
    return reasons


def config_there(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that diffusers builds the same network from."""
    encoder, bottleneck = config["encoder"], config["bottleneck"]
    levels = len(encoder["multipliers"])
    attended = [level in encoder["attention_levels"] for level in range(levels)]
    is_kl = bottleneck["type"] == "gaussian"
    common: dict[str, Any] = {
        "_class_name": KL if is_kl else VQ,
        "in_channels": encoder["image_channels"],
        "out_channels": config["decoder"]["image_channels"],
        "down_block_types": [f"{'Attn' if attention else ''}DownEncoderBlock2D" for attention in attended],
        "up_block_types": [f"{'Attn' if attention else ''}UpDecoderBlock2D" for attention in reversed(attended)],
        "block_out_channels": [encoder["channels"] * multiplier for multiplier in encoder["multipliers"]],
        "layers_per_block": encoder["blocks"],
        "act_fn": "silu",
        "norm_num_groups": encoder["groups"],
        "mid_block_add_attention": encoder["middle_attention"],
        "sample_size": 512 if is_kl and levels == 4 else 256,
        **_scale_there(config.get("latents")),
    }
    if is_kl:
        return common | {
            "latent_channels": bottleneck["latent_channels"],
            "use_quant_conv": bottleneck.get("projection", True),
            "use_post_quant_conv": config["decoder"]["z_channels"] is not None,
        }
    quantizer = only_quantizer(config) or {}
    norm = {"norm_type": "spatial"} if is_spatial(config) else {}
    kl_only = {"shift_factor", "latents_mean", "latents_std"}
    return (
        {key: value for key, value in common.items() if key not in kl_only}
        | norm
        | {
            "latent_channels": encoder["out_channels"],
            "num_vq_embeddings": quantizer["size"],
            "vq_embed_dim": quantizer["channels"],
        }
    )


def _scale_there(latents: Mapping[str, Any] | None) -> dict[str, Any]:
    """One factor and shift if all channels share them, else mean and deviation per channel."""
    if not latents:
        return {"scaling_factor": 1.0}
    shift, scale = latents["shift"], latents["scale"]
    if len({*shift}) == 1 and len({*scale}) == 1:
        return {"scaling_factor": scale[0], **({"shift_factor": shift[0]} if shift[0] else {})}
    return {"scaling_factor": 1.0, "latents_mean": list(shift), "latents_std": [1.0 / value for value in scale]}


def _latents(there: Mapping[str, Any], asked: float | None, *, is_kl: bool) -> dict[str, list[float]] | None:
    default = DEFAULT_SCALE if is_kl and not there else 1.0
    factor = asked or there.get("scaling_factor") or default
    mean = there.get("latents_mean") or [there.get("shift_factor") or 0.0]
    scale = [factor / deviation for deviation in there.get("latents_std") or [1.0] * len(mean)]
    if scale == [1.0] and mean == [0.0]:
        return None
    return {"shift": [float(value) for value in mean], "scale": [float(value) for value in scale]}


def _check(there: Mapping[str, Any], config: Mapping[str, Any], where: str) -> None:
    """Whether the configuration beside the weights is one of ours, and says what the tensors say."""
    if there.get("act_fn", "silu") not in {"silu", "swish"}:
        raise UserError(f"{where}: act_fn={there['act_fn']!r}: smalti has 'silu' only")
    taken, given = there.get("in_channels", 3), there.get("out_channels", 3)
    if taken != given:
        raise UserError(f"{where}: in_channels={taken!r}, out_channels={given!r}: expected equal numbers")
    here = {"norm_type": "group"} | config_there(config)
    names = ("block_out_channels", "layers_per_block", "latent_channels", "num_vq_embeddings", "norm_type")
    problems = [
        f"{name}={there[name]!r}, the tensors say {here[name]!r}"
        for name in names
        if name in there and name in here and _listed(there[name]) != _listed(here[name])
    ]
    if problems:
        raise UserError(f"{where} does not fit the weights: {'; '.join(problems)}")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value
