"""``smalti encode``: a folder of images -> tokens or latents."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import ModelPath, Tile, TrustCode, batches_of, encodable, open_model
from smalti.cli._options import BatchSize, Device, Size

if TYPE_CHECKING:
    import numpy as np

    from smalti.data import ImageSource
    from smalti.models.autoencoder import Autoencoder
    from smalti.outputs import Batch


def encode(
    model: ModelPath,
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of images, with its subfolders.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The .npz file to write.", show_default=False)],
    size: Size = None,
    latents: Annotated[bool, typer.Option("--latents", help="Write latents, also for a model with tokens.")] = False,
    batch_size: BatchSize = 8,
    tile: Tile = None,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Encode images to tokens or latents in an .npz file.

    The file has one array per image, named by the image's path: tokens (G, h, w) of G codebooks, or latents (C, h, w)
    of a model without codebooks. Without --size, the height and width of every image must be divisible by the model's
    factor. To train a generator on the tokens, use `smalti tokenize`.

    Example: smalti encode runs/quickstart --data photos --out tokens.npz
    """
    from smalti.cli._files import refuse_existing, write_npz

    refuse_existing(out, force)
    tokenizer = open_model(model, device, trust_code, tile)
    source, batches = batches_of(tokenizer, data, reading_of(max_pixels, value_range, background), size, batch_size)
    arrays = encoded(tokenizer, source, batches, latents=latents)
    typer.echo(f"{write_npz(out, arrays)} images -> {out}")


def encoded(
    model: "Autoencoder", source: "ImageSource", batches: "Iterable[Batch]", *, latents: bool
) -> "Iterator[tuple[str, np.ndarray]]":
    """Name and array of each image in the order of the source: int32 tokens (G, h, w), or float32 latents (C, h, w).

    Tokens are int64 where a codebook has more than 2^31 codes.
    """
    import torch

    from smalti.registry import UserError

    kind = torch.int64 if any(size > 2**31 for size in model.codebook_sizes.values()) else torch.int32
    for batch in encodable(batches, source, model):
        with torch.inference_mode():
            output = model.encode(batch["image"])
        tokens = None if latents or output.indices is None else output.indices.to(kind)
        values = (output.latent.float() if tokens is None else tokens).cpu().numpy()
        whole = torch.isfinite(output.latent).flatten(1).all(dim=1).tolist()
        for index, value, finite in zip(batch["index"].tolist(), values, whole, strict=True):
            if not finite:
                raise UserError(f"{source.names[index]}: its latent is not finite; the model's weights are spoilt")
            yield source.names[index], value
