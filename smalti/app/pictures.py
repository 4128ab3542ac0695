"""A picture through a tokenizer: what comes out, what is lost, how many bits it takes, and a map of its tokens."""

import colorsys
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from smalti.data._decoding import Mode, Reading, read_image
from smalti.data.grid import to_pillow
from smalti.data.loader import to_device
from smalti.data.transforms import Transform
from smalti.losses.psnr import psnr
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

GAIN = 4  # by which a difference is brightened
MAP = 448  # about the longer side of a map of tokens, in pixels
_MODES: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}
_GOLDEN = 0.618033988749895


def fitted(path: Path, longest: int, factors: Sequence[int], max_pixels: int) -> Image.Image:
    """The middle of an image file, as large as the models take.

    Args:
        path: of the file.
        longest: pixels that its longer side has at most.
        factors: height and width become divisible by all of them.
        max_pixels: a file with more is not decoded.

    Raises:
        UserError: if it cannot be read, or is too small.
    """
    try:
        image = read_image(path, "RGBA", Reading(max_pixels=max_pixels))
    except ValueError as error:
        raise UserError(f"the picture: {error}") from error
    if max(image.size) > longest:
        scale = longest / max(image.size)
        image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.LANCZOS)
    unit = math.lcm(*factors) if factors else 1
    width, height = (side // unit * unit for side in image.size)
    if not width or not height:
        raise UserError(f"the picture has {image.width} x {image.height} pixels: expected at least {unit} x {unit}")
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def tensor_of(image: Image.Image, model: Autoencoder) -> Tensor:
    """A Pillow image as a model takes it, with shape (1, C, H, W) in [-1, 1], on its device.

    Raises:
        UserError: for a model of images that have no such channels.
    """
    if model.image_channels not in _MODES:
        raise UserError(f"the model takes images of {model.image_channels} channels: expected 1, 3 or 4")
    pixels = Transform()({"image": image.convert(_MODES[model.image_channels])}, random.Random(0))["image"]
    place = next(model.parameters())
    found: Tensor = to_device({"image": pixels[None]}, place.device)["image"]
    return found


def difference(original: Tensor, made: Tensor) -> Image.Image:
    """How far two images (1, C, H, W) are apart, black where they are equal, brightened by ``GAIN``."""
    colours = (made.clamp(-1, 1) - original)[0, :3].abs() * GAIN - 1
    return to_pillow(colours.clamp(-1, 1).float().cpu())


def told(model: Autoencoder, original: Tensor, made: Tensor, indices: Tensor | None) -> str:
    """PSNR, tokens and bits of an image (1, C, H, W), in a line of Markdown."""
    height, width = original.shape[-2:]
    parts = [f"**{float(psnr(made, original)):.2f} dB** PSNR", f"{width} x {height} pixels"]
    if indices is not None:
        rows, columns = indices.shape[-2:]
        bits = rows * columns * sum(math.log2(size) for size in model.codebook_sizes.values())
        planes = f" in {indices.shape[1]} codebooks" if indices.shape[1] > 1 else ""
        used = ", ".join(str(plane.unique().numel()) for plane in indices[0])
        parts.append(f"{columns} x {rows} tokens{planes}")
        parts.append(f"**{bits:,.0f} bits**, {bits / (height * width):.3f} a pixel")
        parts.append(f"{used} different codes")
    return " · ".join(parts)


def tile_of(rows: int, columns: int) -> int:
    """Pixels of a token on a map of so many."""
    return max(4, MAP // max(rows, columns))


def token_map(codes: Tensor, marked: Sequence[tuple[int, int]] = (), means: Tensor | None = None) -> Image.Image:
    """Tokens (h, w) as squares, each code in a colour of its own.

    Args:
        codes: int64 with shape (h, w).
        marked: rows and columns of tokens that have a frame, the first one black, others white.
        means: bool with shape (h, w): tokens that are replaced by the mean, which are grey.
    """
    tile = tile_of(*codes.shape)
    colours = np.array([colour_of(int(code)) for code in codes.flatten().tolist()], dtype=np.uint8)
    colours = colours.reshape(*codes.shape, 3)
    if means is not None:
        colours[means.cpu().numpy()] = 128
    image = Image.fromarray(colours.repeat(tile, axis=0).repeat(tile, axis=1))
    drawn = ImageDraw.Draw(image)
    for number, (row, column) in enumerate(marked):
        box = (column * tile, row * tile, (column + 1) * tile - 1, (row + 1) * tile - 1)
        drawn.rectangle(box, outline="white" if number else "black", width=max(2, tile // 6))
    return image


def colour_of(code: int) -> tuple[int, int, int]:
    """A colour for a code, as far as can be from those of codes near it.

    >>> len({colour_of(code) for code in range(500)})
    500
    """
    hue, shade = code * _GOLDEN % 1.0, code * _GOLDEN * _GOLDEN % 1.0
    red, green, blue = colorsys.hls_to_rgb(hue, 0.35 + 0.4 * shade, 0.45 + 0.45 * (code * 0.7548776662 % 1.0))
    return round(255 * red), round(255 * green), round(255 * blue)


def picture(image: Tensor) -> Image.Image:
    """The first of images (B, C, H, W) in [-1, 1], clamped."""
    with torch.inference_mode():
        return to_pillow(image[0].float().cpu())
