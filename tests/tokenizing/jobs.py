"""Small tokenizers of each kind, and jobs of theirs."""

from pathlib import Path
from typing import Any

import torch

import smalti
from smalti.data.image_folder import ImageFolder
from smalti.tokenizing.framing import Framing
from smalti.tokenizing.job import Job

TINY = Path(__file__).parent.parent / "cli" / "tiny.yaml"
PIXELS = "objective.generator={pixel: {type: mse}}"
KINDS = {
    "tokens": [],
    "two": [
        "model.bottleneck={type: tokens, in_channels: 8, codebooks: {a: {quantizer: {type: nearest, size: 300, "
        "channels: 2}}, b: {quantizer: {type: nearest, size: 16, channels: 2}}}}"
    ],
    "steps": [
        "model.bottleneck={type: tokens, in_channels: 8, codebooks: {vq: {quantizer: {type: residual, steps: 3, "
        "quantizer: {type: nearest, size: 16, channels: 4}}}}}"
    ],
    "gaussian": ["model.bottleneck={type: gaussian, in_channels: 8, latent_channels: 4}", PIXELS],
    "identity": [
        "model.bottleneck={type: identity, in_channels: 8}",
        "model.decoder.latent_channels=8",
        PIXELS,
    ],
}


def model(kind: str = "two") -> Any:
    """An untrained tokenizer of factor 4 whose codes are spread over its features."""
    made = smalti.build(TINY, KINDS[kind]).eval()
    for name, value in made.state_dict().items():
        if "codebook" in name or ("weight" in name and value.ndim == 2):
            value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(value.numel())))
    return made


def job(folder: Path, kind: str = "two", views: Any = "none", size: int | None = None, **options: Any) -> Job:
    return Job(
        model=options.pop("model", None) or model(kind),
        path=options.pop("path", "runs/toy"),
        source=options.pop("source", None) or ImageFolder(str(folder), table=options.pop("table", None)),
        data=options.pop("data", "photos"),
        framing=Framing(size=size, views=views, crop_ratios=options.pop("crop_ratios", ())),
        **{"batch_size": 4, "shard_images": 3, **options},
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Relative name -> bytes of every file."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
