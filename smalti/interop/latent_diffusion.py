"""latent-diffusion (Rombach et al., arXiv:2112.10752) and taming-transformers (Esser et al., arXiv:2012.09841).

KL, VQ and Gumbel VQ autoencoders: alone, in a Lightning checkpoint, or as ``first_stage_model`` of Stable Diffusion.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from smalti.interop import Format, ImportOptions, Layout, Twin
from smalti.interop._backbone import COMPVIS, OWN, bottleneck_rules
from smalti.interop._codebooks import are_unit, only_quantizer, reasons_against
from smalti.interop._files import write_state
from smalti.interop._table import Note, Table
from smalti.interop.diffusers import Diffusers
from smalti.registry import UserError

STABLE_DIFFUSION_SCALE = 0.18215
DROPPED = (
    Note(r"loss\.perceptual_loss\.", "LPIPS, a frozen network of the loss"),
    Note(r"loss\.logvar$", "scale of the loss, which the original never trains"),
    Note(r"loss\.", "state of the loss"),
    Note(r"quantize\.embedding\.(cluster_size|embed_avg)$", "moving averages of the codebook's training"),
    Note(r"colorize$", "random colours for pictures of segmentations"),
)


class LatentDiffusion(Format):
    """Checkpoints of the CompVis repositories."""

    title = "latent-diffusion / taming-transformers"
    suffixes = (".ckpt", ".pt", ".safetensors")
    quantizers: ClassVar[tuple[str, ...]] = ("nearest", "gumbel")
    asks = frozenset({"scaling_factor"})

    def recognises(self, keys: Collection[str]) -> bool:
        """By its numbered levels ``encoder.down.0.block``."""
        return any(key.startswith("encoder.down.") for key in keys)

    def refuses(self, keys: Collection[str]) -> str | None:
        """Remapped codes, linear attention and other networks."""
        if "quantize.used" in keys:
            return "its tokens are remapped to a subset of the codebook ('remap'); re-index them in the original first"
        if any(".conv_y." in key for key in keys):
            return "its decoder is normalised by the codes (MoVQ), which is read in the layout of diffusers alone"
        if any(".to_qkv." in key for key in keys):
            return "it has linear attention (attn_type 'linear'), which smalti has not"
        if any(".conv_shortcut." in key for key in keys):
            return "it has 3x3 shortcuts (conv_shortcut), which smalti has not"
        if any(key.startswith("decoder.adaptive.") for key in keys):
            return (
                "it is Open-MAGVIT2's, whose decoder normalises by its tokens (AdaptiveGroupNorm), which smalti has not"
            )
        return None

    def layout(self, keys: Collection[str]) -> Layout:
        """Levels and middles."""
        return COMPVIS.layout(keys)

    def table(self, layout: Layout) -> Table:
        """The key table."""
        return Table([*COMPVIS.rules(layout), *bottleneck_rules(layout)], DROPPED, OWN, layout.levels)

    def complete(
        self, config: dict[str, Any], beside: Mapping[str, Any], options: ImportOptions, where: str
    ) -> dict[str, Any]:
        """Dropout and ``scale_factor`` from a YAML beside the file; the published scale for Stable Diffusion's layout.

        Raises:
            UserError: if the YAML asks for what smalti has not, or is of a quantizer that is another format here.
        """
        named = str(_find(beside, "class_path").get("class_path", ""))
        if named.endswith(".IBQ") and "ibq" not in self.quantizers:
            raise UserError(f"{where}: class_path: {named}: its codes are compared by products: say --from ibq")
        model = _find(beside, "ddconfig")
        network = model.get("ddconfig", {})
        if network.get("tanh_out"):
            raise UserError(f"{where}: tanh_out: true: smalti's decoders end without a tanh")
        dropout = network.get("dropout", 0.0)
        if isinstance(dropout, float) and dropout:
            config["encoder"]["dropout"] = config["decoder"]["dropout"] = dropout
        scale = options.scaling_factor or _find(beside, "scale_factor").get("scale_factor")
        if scale is None and _is_stable_diffusion(config):
            scale = STABLE_DIFFUSION_SCALE
        if isinstance(scale, (int, float)) and scale != 1.0:
            config["latents"] = {"shift": [0.0], "scale": [float(scale)]}
        return config

    def unsupported(self, config: Mapping[str, Any]) -> list[str]:
        """Unit codes and other groups: nothing in the keys shows them."""
        reasons = [] if config["encoder"]["groups"] == 32 == config["decoder"]["groups"] else ["groups other than 32"]
        reasons += reasons_against(config, self.quantizers)
        if config["decoder"]["norm"] == "spatial":
            reasons.append("norm='spatial' of the decoder (MoVQ): only diffusers' VQModel has it")
        return reasons + (["codes compared as unit vectors"] if are_unit(config) else [])

    def notes(self, config: Mapping[str, Any]) -> list[str]:
        """The weights its quantizer was trained with."""
        quantizer = only_quantizer(config)
        if quantizer is None:
            return []
        if quantizer["type"] == "gumbel":
            return ["its codes are drawn by logits (GumbelQuantize): to go on, categorical_kl in place of commitment"]
        return [
            "trained with beta on the wrong term (VectorQuantizer2, legacy): to go on as it was, weigh commitment with "
            "1 and codebook with 0.25"
        ]

    def write(self, path: Path, state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
        """A state dict under ``state_dict``, as ``init_from_ckpt`` reads it; bare in a safetensors file."""
        write_state(path, state, "state_dict")

    def twin(self, model: nn.Module, config: Mapping[str, Any], beside: Mapping[str, Any]) -> Twin | None:
        """The same network in diffusers, where its configuration can say it."""
        return Diffusers().twin(model, config, {})


def _is_stable_diffusion(config: Mapping[str, Any]) -> bool:
    if config["bottleneck"]["type"] != "gaussian" or config["bottleneck"]["latent_channels"] != 4:
        return False
    return list(config["encoder"]["multipliers"]) == [1, 2, 4, 4]


def _find(value: Any, name: str) -> Mapping[str, Any]:
    """The first mapping, at any depth, that has the entry ``name``; empty if there is none."""
    if isinstance(value, Mapping):
        if name in value:
            return value
        for item in value.values():
            if found := _find(item, name):
                return found
    return {}
