"""``smalti encode``: a folder of images -> tokens or latents."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import Device, ModelPath, TrustCode, fitting, images_for, open_model

if TYPE_CHECKING:
    import numpy as np

    from smalti.data import ImageSource
    from smalti.data.transforms import Transform
    from smalti.models.autoencoder import Autoencoder


def encode(
    model: ModelPath,
    data: Annotated[Path, typer.Option(help="Folder of images, searched to any depth.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The .npz file to write.", show_default=False)],
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Resize to cover SIZE pixels and take the middle; else images as they are."),
    ] = None,
    latents: Annotated[bool, typer.Option("--latents", help="Write latents even if the model has tokens.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one size that are encoded together.")] = 8,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write tokens or latents of a folder of images.

    The file holds one array for each image under the image's path: tokens (G, h, w), or latents (C, h, w) of a model
    without a codebook. Images stay as they are: height and width must be divisible by the model's factor, or give
    --size.

    Example: smalti encode runs/quickstart --data photos --out tokens.npz
    """
    from smalti.cli._files import refuse_existing, write_npz
    from smalti.data.transforms import Transform

    refuse_existing(out, force)
    tokenizer = open_model(model, device, trust_code)
    source = images_for(tokenizer, data, reading_of(max_pixels, value_range, background))
    transform = Transform(size=size, crop="adm_center") if size else Transform()
    arrays = encoded(tokenizer, source, transform, latents=latents, batch_size=batch_size)
    typer.echo(f"{write_npz(out, arrays)} images -> {out}")


def encoded(
    model: "Autoencoder", source: "ImageSource", transform: "Transform", *, latents: bool, batch_size: int
) -> "Iterator[tuple[str, np.ndarray]]":
    """Name and array of each image in the order of the source: int32 tokens (G, h, w), or float32 latents (C, h, w)."""
    import torch

    from smalti.data.loader import evaluation_batches, to_device

    device = next(model.parameters()).device
    for batch in fitting(evaluation_batches(source, transform, batch_size), source, model.factor):
        with torch.inference_mode():
            output = model.encode(to_device(dict(batch), device)["image"])
        tokens = None if latents or output.indices is None else output.indices.to(torch.int32)
        values = (output.latent.float() if tokens is None else tokens).cpu().numpy()
        for index, value in zip(batch["index"].tolist(), values, strict=True):
            yield source.names[index], value
