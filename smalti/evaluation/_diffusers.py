"""Autoencoders of diffusers, whatever their class: what has ``encode`` and ``decode``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti.evaluation._returns import decoded, encoded
from smalti.evaluation.adapters import Coder
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError, shown

CONFIG = "config.json"
PROBE = 128  # side of the image that shows the factor; no autoencoder of images has a larger one


class Diffusers(Coder):
    """A network of diffusers in its own code.

    Of its posterior the mode is taken, and no latent is scaled. The tokens of a ``VQModel`` are those that its own
    quantizer gives.

    Args:
        model: the network.
        name: what results call it.
        origin: where it is from.
    """

    def __init__(self, model: nn.Module, name: str, origin: str) -> None:
        super().__init__()
        self.model: Any = model
        self.name, self.origin = name, origin
        self._shape: tuple[int, ...] = ()
        with torch.no_grad():
            latent = self.encode(torch.zeros(1, self.image_channels, PROBE, PROBE)).latent
        self.factor = PROBE // latent.shape[-1]

    @property
    def image_channels(self) -> int:
        """Channels of its images."""
        return int(self.model.config.get("in_channels", 3))

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """The number of codes of a VQModel, under the name ``codebook``."""
        quantizer = getattr(self.model, "quantize", None)
        return {} if quantizer is None else {"codebook": int(quantizer.n_e)}

    def encode(self, images: Tensor) -> BottleneckOutput:
        """Images (B, C, H, W) to a latent, its posterior if there is one, and of a VQModel to tokens (B, 1, h, w)."""
        self._shape = tuple(images.shape)
        found = encoded(self.model.encode(images), 0, self.origin)
        if not self.codebook_sizes:
            return found
        _, _, (_, _, indices) = self.model.quantize(found.latent)
        return BottleneckOutput(
            latent=found.latent, indices=indices.view(len(found.latent), 1, *found.latent.shape[2:])
        )

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C', h, w) to images (B, C, H, W), of the shape that was encoded last."""
        return decoded(self.model.decode(latent), self._shape, self.origin)


def class_in(folder: Path) -> str | None:
    """The class of diffusers that a folder's configuration names, None if it names none."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    try:
        name = json.loads(path.read_text(encoding="utf-8")).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None  # whoever opens the model says what is wrong with it
    return name if isinstance(name, str) else None


def open_diffusers(folder: Path, name: str) -> Diffusers:
    """Loads a folder of diffusers, weights in safetensors only.

    Raises:
        UserError: if diffusers is missing, has no such autoencoder, or cannot read it.
    """
    try:
        import diffusers
    except ImportError as error:
        raise UserError(f"{folder}: needs diffusers (pip install 'smalti[hf]'): {error}") from error
    wanted = class_in(folder)
    found = getattr(diffusers, wanted, None) if wanted and wanted.isidentifier() else None
    if not (
        isinstance(found, type)
        and issubclass(found, nn.Module)
        and hasattr(found, "encode")
        and hasattr(found, "decode")
    ):
        raise UserError(f"{folder}: _class_name={shown(wanted)}: no autoencoder of diffusers {diffusers.__version__}")
    try:
        model = found.from_pretrained(str(folder), use_safetensors=True)  # type: ignore[attr-defined]
    except Exception as error:  # whatever its loader raises
        raise UserError(f"{folder}: diffusers cannot read it: {error}") from error
    return Diffusers(model.eval(), name, str(folder))
