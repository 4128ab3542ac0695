"""The model that a verb works with."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from smalti.cli._options import LARGEST_SIDE, check_room, device_of, whole_number
from smalti.registry import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from smalti.data import ImageSource
    from smalti.data._decoding import Reading
    from smalti.models._generator import Generator
    from smalti.models._token_model import TokenModel
    from smalti.models.autoencoder import Autoencoder
    from smalti.outputs import Batch

FLOAT = 4  # bytes

ModelPath = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A run folder (RUN@best, RUN@last, RUN@400 for one of its checkpoints), a saved model, or a Hugging Face "
        "repository.",
        show_default=False,
    ),
]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Let the configuration of a saved model import code from outside smalti."),
]


Tile = Annotated[
    int | None,
    whole_number(
        "Process images in overlapping tiles of N x N pixels, a multiple of the model's factor: less memory, slightly "
        "different results.",
        limit=LARGEST_SIDE,
        show_default="whole images",
    ),
]


def open_model(path: str, device: str, trust_code: bool = False, tile: int | None = None) -> "Autoencoder":
    """Loads a trained autoencoder in evaluation mode, to work on tiles of ``tile`` pixels if that is given.

    Raises:
        UserError: if it is missing or damaged or something else, there is no such device, or no such tile.
    """
    from smalti.models.autoencoder import Autoencoder

    model = open_any(path, device, trust_code)
    if not isinstance(model, Autoencoder):
        raise UserError(f"{path}: a {type(model).__name__}, expected an autoencoder; `smalti sample` is for generators")
    if tile is not None:
        model.enable_tiling(tile)
    return model


def images_for(channels: int, folder: "Path", reading: "Reading", table: "Path | None" = None) -> "ImageSource":
    """The images of a folder, read with as many channels as a model takes: grey, colour or with alpha.

    Args:
        channels: of the model's images.
        folder: where they are.
        reading: how their files are read.
        table: a CSV file of their other columns.

    Raises:
        UserError: if image files have no such number of channels, or there is no image.
    """
    from smalti.data.image_folder import ImageFolder

    if channels not in (1, 3, 4):
        raise UserError(f"the model takes images of {channels} channels: expected 1, 3 or 4 for files")
    return ImageFolder(
        str(folder),
        table=None if table is None else str(table),
        image_channels=channels,  # type: ignore[arg-type]
        max_pixels=reading.max_pixels,
        value_range=reading.value_range,
        background=reading.background,
    )


def batches_of(
    model: "Autoencoder", folder: "Path", reading: "Reading", size: int | None, batch_size: int
) -> "tuple[ImageSource, Iterator[Batch]]":
    """The images of a folder as a source, and in batches: ``image`` uint8 (B, C, H, W), ``index`` (B,).

    Args:
        model: whose images they will be.
        folder: where they are.
        reading: how their files are read.
        size: side to which all are resized and cropped; None: they stay as they are.
        batch_size: largest number of images in a batch.

    Raises:
        UserError: as for ``images_for``, or if no memory could hold a batch.
    """
    from smalti.data.loader import evaluation_batches
    from smalti.data.transforms import Transform

    source = images_for(model.image_channels, folder, reading)
    transform = Transform(size=size, crop="adm_center") if size else Transform()
    if size:
        together = min(batch_size, len(source))
        needed = together * model.image_channels * size**2 * FLOAT
        check_room(needed, f"a batch of {together} images of {size} pixels", "--size or --batch-size")
    return source, evaluation_batches(source, transform, batch_size)


def encodable(batches: "Iterable[Batch]", source: "ImageSource", model: "Autoencoder") -> "Iterator[Batch]":
    """The batches of ``source`` on the model's device, their images (B, C, H, W) in [-1, 1].

    Raises:
        UserError: naming the first image whose height or width is not divisible by the model's factor.
    """
    from smalti.data.loader import to_device

    factor, device = model.factor, next(model.parameters()).device
    for batch in batches:
        height, width = batch["image"].shape[-2:]
        if height % factor or width % factor:
            name = source.names[int(batch["index"][0])]
            rule = f"expected both divisible by the model's factor {factor}"
            raise UserError(f"{name}: {height} x {width} pixels: {rule}; --size resizes and crops all images")
        yield to_device(dict(batch), device)


def open_sampler(path: str, device: str, trust_code: bool = False) -> "Generator | TokenModel":
    """Loads a trained generator in evaluation mode: a GAN's, or a model of tokens.

    Raises:
        UserError: if it is missing or damaged or something else, or there is no such device.
    """
    from smalti.models._generator import Generator
    from smalti.models._token_model import TokenModel

    model = open_any(path, device, trust_code)
    if not isinstance(model, Generator | TokenModel):
        raise UserError(f"{path}: a {type(model).__name__}, expected a generator; see `smalti reconstruct`")
    return model


def open_any(path: str, device: str, trust_code: bool = False) -> Any:
    """Loads a trained model of any kind in evaluation mode.

    Raises:
        UserError: if it is missing or damaged, or there is no such device.
    """
    import smalti

    return smalti.load(path, map_location=str(device_of(device)), trust_code=trust_code)
