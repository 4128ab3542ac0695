"""Pictures for people: tensors to 8 bits, targets beside reconstructions, many images in one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from smalti.writing import whole

LAYOUT = "smalti:grid"


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as the nearest of 256 levels, clamped, uint8 with the same shape.

    Raises:
        ValueError: for whole numbers, which are no images in [-1, 1].

    Example:
        >>> to_uint8(torch.tensor([-2.0, -1.0, 0.0, 1.0]))
        tensor([  0,   0, 128, 255], dtype=torch.uint8)
    """
    if not images.is_floating_point():
        raise ValueError(f"images are {images.dtype}: expected floating images in [-1, 1]")
    return ((images.detach().float().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)


def to_pillow(image: Tensor) -> Image.Image:
    """One image with shape (C, H, W) in [-1, 1], C = 1, 3 or 4, as a Pillow image.

    Raises:
        ValueError: for any other number of channels.
    """
    if image.ndim != 3 or image.shape[0] not in {1, 3, 4}:
        raise ValueError(f"image with shape {tuple(image.shape)}: expected (C, H, W) with 1, 3 or 4 channels")
    array = to_uint8(image).cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else array)


def side_by_side(target: Tensor, reconstruction: Tensor, gap: int = 4) -> Tensor:
    """Each target left of its reconstruction, a white gap between them.

    Args:
        target: with shape (B, C, H, W) in [-1, 1].
        reconstruction: same shape.
        gap: width in pixels.

    Returns:
        With shape (B, C, H, 2 W + gap).

    Raises:
        ValueError: for unequal shapes.
    """
    if target.shape != reconstruction.shape:
        shapes = f"{tuple(target.shape)} and {tuple(reconstruction.shape)}"
        raise ValueError(f"target and reconstruction have shapes {shapes}: must be equal")
    white = target.new_ones(*target.shape[:3], gap)
    return torch.cat([target, white, reconstruction.to(target)], dim=3)


def grid(images: Sequence[Tensor] | Tensor, columns: int, gap: int = 4) -> Image.Image:
    """Images in rows of ``columns`` on white, each in a cell of the size of the largest.

    Args:
        images: each with shape (C, H, W) in [-1, 1]; sizes may differ.
        columns: images in a row.
        gap: pixels between cells.

    Raises:
        ValueError: if there is no image, or ``columns`` is less than 1.
    """
    if columns < 1 or not len(images):
        raise ValueError(f"{len(images)} images in {columns} columns: expected at least one of both")
    tiles = [to_pillow(image).convert("RGB") for image in images]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    width, height = (int(np.max([tile.size[axis] for tile in tiles])) + gap for axis in (0, 1))
    sheet = Image.new("RGB", (columns * width - gap, rows * height - gap), "white")
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % columns * width, number // columns * height))
    return sheet


def save_grid(
    path: str | Path, images: Sequence[Tensor] | Tensor, columns: int, gap: int = 4, pairs: bool = False
) -> None:
    """Writes ``grid(images, columns, gap)`` to ``path``; folders are made; the format follows the suffix.

    A PNG says in its text ``LAYOUT`` how it is divided: numbers of images, columns and pixels of the gap; and with
    ``pairs`` that of two images beside each other the second was made of the first.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PngInfo()
    text.add_text(LAYOUT, f"{len(images)} {min(columns, len(images))} {gap}{' pairs' if pairs else ''}")
    options: dict[str, Any] = {"pnginfo": text} if path.suffix == ".png" else {}
    with whole(path) as unfinished:
        grid(images, columns, gap).save(unfinished, **options)
