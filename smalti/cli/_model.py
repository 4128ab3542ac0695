"""The model that a verb works with."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from smalti.registry import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from smalti.data import ImageSource
    from smalti.data._decoding import Reading
    from smalti.models._generator import Generator
    from smalti.models.autoencoder import Autoencoder
    from smalti.outputs import Batch

ModelPath = Annotated[
    str, typer.Argument(metavar="MODEL", help="A run folder, a saved model or a Hub repository.", show_default=False)
]
Device = Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1; auto takes a GPU if there is one.")]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-code", help="Let a saved model's configuration import classes that smalti does not have."),
]


def open_model(path: str, device: str, trust_code: bool = False) -> "Autoencoder":
    """Loads a trained autoencoder in evaluation mode.

    Raises:
        UserError: if it is missing or damaged or something else, or there is no such device.
    """
    from smalti.models.autoencoder import Autoencoder

    model = _open(path, device, trust_code)
    if not isinstance(model, Autoencoder):
        raise UserError(f"{path}: a {type(model).__name__}, expected an autoencoder; `smalti sample` is for generators")
    return model


def images_for(model: "Autoencoder", folder: "Path", reading: "Reading") -> "ImageSource":
    """The images of a folder, read with as many channels as the model takes: grey, colour or with alpha.

    Args:
        model: whose images they will be.
        folder: where they are.
        reading: how their files are read.

    Raises:
        UserError: if image files have no such number of channels, or there is no image.
    """
    from smalti.data.image_folder import ImageFolder

    if model.image_channels not in (1, 3, 4):
        raise UserError(f"the model takes images of {model.image_channels} channels: expected 1, 3 or 4 for files")
    return ImageFolder(
        str(folder),
        image_channels=model.image_channels,  # type: ignore[arg-type]
        max_pixels=reading.max_pixels,
        value_range=reading.value_range,
        background=reading.background,
    )


def fitting(batches: "Iterable[Batch]", source: "ImageSource", factor: int) -> "Iterator[Batch]":
    """The batches of ``source``, whose images (B, C, H, W) a model of this factor can encode.

    Raises:
        UserError: naming the first image whose height or width is not divisible by ``factor``.
    """
    for batch in batches:
        height, width = batch["image"].shape[-2:]
        if height % factor or width % factor:
            name = source.names[int(batch["index"][0])]
            rule = f"expected both divisible by the model's factor {factor}"
            raise UserError(f"{name}: {height} x {width} pixels: {rule}; --size resizes and crops all images")
        yield batch


def open_generator(path: str, device: str, trust_code: bool = False) -> "Generator":
    """Loads a trained generator in evaluation mode.

    Raises:
        UserError: if it is missing or damaged or something else, or there is no such device.
    """
    from smalti.models._generator import Generator

    model = _open(path, device, trust_code)
    if not isinstance(model, Generator):
        raise UserError(f"{path}: a {type(model).__name__}, expected a generator; see `smalti reconstruct`")
    return model


def _open(path: str, device: str, trust_code: bool) -> Any:
    import torch

    import smalti

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return smalti.load(path, map_location=device, trust_code=trust_code)
