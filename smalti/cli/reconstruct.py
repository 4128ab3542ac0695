"""``smalti reconstruct``: images through the tokenizer and back."""

import random
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import ModelPath, Tile, TrustCode, open_model
from smalti.cli._options import Device
from smalti.registry import UserError

if TYPE_CHECKING:
    from torch import Tensor

    from smalti.data._decoding import Reading


def reconstruct(
    model: ModelPath,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files of any size.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where to write NAME.png.", show_default=False)],
    side_by_side: Annotated[bool, typer.Option("--side-by-side", help="Show the original on the left.")] = False,
    tile: Tile = None,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:
    """Reconstruct images with a tokenizer or autoencoder.

    Writes OUT/NAME.png and prints the PSNR of each image.

    Example: smalti reconstruct runs/quickstart cat.png --out pictures
    """
    import torch

    from smalti.cli._files import refuse_existing
    from smalti.data.grid import save_grid
    from smalti.data.grid import side_by_side as beside
    from smalti.losses.psnr import psnr

    targets = [out / f"{image.stem}.png" for image in images]
    for target in targets:
        if targets.count(target) > 1:
            raise UserError(f"{target}: two images would be written to it; reconstruct them one after the other")
        refuse_existing(target, force)
    reading = reading_of(max_pixels, value_range, background)
    tokenizer = open_model(model, device, trust_code, tile)
    place = next(tokenizer.parameters()).device
    for image, target in zip(images, targets, strict=True):
        original = open_image(image, tokenizer.image_channels, reading).to(place)
        with torch.inference_mode():
            made = tokenizer.reconstruct(original)
        save_grid(target, beside(original, made) if side_by_side else made, columns=1)
        typer.echo(f"{target}  PSNR {float(psnr(made, original)):.2f} dB")


def open_image(path: Path, channels: int, reading: "Reading | None" = None) -> "Tensor":
    """An image file as a tensor with shape (1, C, H, W) in [-1, 1].

    Raises:
        UserError: if it cannot be read as an image.
    """
    from smalti.data._decoding import Reading, gap, read_image
    from smalti.data.loader import to_device
    from smalti.data.transforms import Transform

    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise UserError(f"the model takes images of {channels} channels: expected 1, 3 or 4 for image files")
    try:
        picture = read_image(path, modes[channels], reading)  # type: ignore[arg-type]
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    said = gap([path], reading or Reading())
    if said is not None:
        typer.echo(f"{path}: {said}", err=True)
    pixels = Transform()({"image": picture}, random.Random(0))["image"]
    image: Tensor = to_device({"image": pixels[None]}, "cpu")["image"]
    return image
