"""Networks of diffusers by the name of their class: which are read, and what the others are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smalti.registry import UserError, shown
from smalti.writing import printable

READ = ("AutoencoderKL", "VQModel")
AUTOENCODERS = ("vae", "vqvae", "movq")  # their folders in a pipeline
# What a class is called -> what it is; the first that fits.
CLASSES = (
    ("AutoencoderTiny", "a distilled autoencoder (TAESD) of another layout"),
    ("AsymmetricAutoencoderKL", "an autoencoder whose decoder sees a mask and is wider than its encoder"),
    ("AutoencoderDC", "the deep-compression autoencoder of another layout (DC-AE)"),
    ("AutoencoderKLTemporalDecoder", "an autoencoder of videos"),
    ("ConsistencyDecoderVAE", "an autoencoder whose decoder is a consistency model"),
    ("AutoencoderOobleck", "an autoencoder of sound"),
    ("AutoencoderRAE", "an autoencoder on features of a pretrained encoder"),
    ("AutoencoderKLFlux2", "an autoencoder that normalises patches of its latents"),
    ("PriorTransformer", "a transformer over embeddings, and no autoencoder"),
)
_OF_VIDEOS = ("Wan", "Mochi", "LTX", "Allegro", "Magvit", "Cosmos", "VidTok", "Qwen", "Temporal")
# Parts of a class's name -> what it is; looked at after the names above.
PARTS = (
    ("Flax", "a network of Flax; read are weights of PyTorch"),
    ("Audio", "a network of sound"),
    ("Vocoder", "a network of sound"),
    ("Video", "a network of videos"),
    ("UNet", "a diffusion model's U-Net, and no autoencoder"),
    ("Transformer", "a diffusion transformer, and no autoencoder"),
    ("ControlNet", "a control of a diffusion model, and no autoencoder"),
    ("Adapter", "an adapter of a diffusion model, and no autoencoder"),
    ("Pipeline", "a whole pipeline"),
    ("Scheduler", "a schedule of noise, which has no weights"),
    ("TextModel", "an encoder of text, and no autoencoder"),
    ("TextEncoder", "an encoder of text, and no autoencoder"),
    *((name, "an autoencoder of videos") for name in _OF_VIDEOS),
    ("Autoencoder", "an autoencoder of another layout"),
    ("VQ", "a network of another layout"),
)


def refuse_class(config: Mapping[str, Any], where: Path) -> None:
    """Refuses the configuration of a network that is not read; one that names no class passes.

    Raises:
        UserError: naming the class, what it is and what is read.
    """
    if "_class_name" not in config:
        return
    name = config["_class_name"]
    if name in READ:
        return
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: _class_name={shown(name)}: expected the name of a class, as {' or '.join(READ)}")
    what = dict(CLASSES).get(name) or next((what for part, what in PARTS if part in name), "a class of another library")
    raise UserError(f"{where}: {printable(name[:80])}, {what}; of diffusers smalti reads {' and '.join(READ)}")
