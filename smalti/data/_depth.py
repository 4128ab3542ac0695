"""Images of more than 8 bits a channel, with all their bits; of colours Pillow itself keeps the upper 8 alone."""

import sys
from io import BytesIO
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

Values = np.ndarray[Any, np.dtype[Any]]
File = Path | bytes  # where an image is, or what its file holds

FULL = 65535
_TWELVE_BITS = 4095
# Pillow takes the more significant byte of every channel; read as if in the other order it takes the less significant.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_LAYOUTS = ("RGB", "RGBX", "RGBA")
_GREY_AND_OPACITY = "LA;16B"  # four bytes: taken as they are, they are both bytes of both channels


def opened(file: File) -> BinaryIO:
    """The bytes of an image: a path is opened, a content is as good as a file.

    Raises:
        ValueError: for a pipe or a device, of which one would wait for ever.
    """
    if isinstance(file, bytes):
        return BytesIO(file)
    if not S_ISREG(file.stat().st_mode):
        raise ValueError("a folder, a pipe or a device, and no file")
    return file.open("rb")


def is_deep(image: Image.Image) -> bool:
    """Whether an image that was opened, and perhaps not decoded, has more than 8 bits a channel in its file."""
    return image.mode.startswith(("I", "F")) or any(";16" in raw for raw in _raw_modes(image))


def is_one_channel(image: Image.Image) -> bool:
    """Whether Pillow itself gives all bits of a deep image: grey without opacity."""
    return image.mode.startswith(("I", "F"))


def type_maximum(image: Image.Image) -> int:
    """The largest value that the file of a deep image could hold: 4095 for packed 12 bits, else that of 16 bits."""
    return _TWELVE_BITS if "I;12" in _raw_modes(image) else FULL


def samples(path: File, image: Image.Image) -> tuple[Values, Values | None]:
    """All bits of a deep image, turned as the camera noted.

    Args:
        path: of the image's file, or its content, which colours need to be read from twice.
        image: opened, not decoded.

    Returns:
        Values with shape (H, W, C), C = 1 or 3, and opacity (H, W) from 0 to 65535, or None.

    Raises:
        ValueError: for a layout of which Pillow gives no more than 8 bits.
    """
    key = image.info.get("transparency")
    if is_one_channel(image):
        image.load()
        values = _upright(image)[:, :, None]
        values = values if image.mode == "F" else values.astype(np.int64)
        return values, None if key is None else np.where(values[:, :, 0] == key, 0, FULL)
    both = _both_bytes(path, image)
    if both.shape[2] == 2:
        return both[:, :, :1], both[:, :, 1]
    values, opacity = both[:, :, :3], both[:, :, 3] if both.shape[2] == 4 else None
    if opacity is None and isinstance(key, tuple):
        opacity = np.where((values == np.asarray(key)).all(axis=2), 0, FULL)
    return values, opacity


def to_eight_bits(values: Values, opacity: Values | None, maximum: float) -> Image.Image:
    """Values (H, W, C) from 0 to ``maximum`` as the nearest of 256 levels: L, LA, RGB or RGBA.

    Raises:
        ValueError: for values outside, which would have to be clipped.
    """
    least, most = values.min(), values.max()
    if not (least >= 0 and most <= maximum):
        wrong = least if least < 0 else most
        raise ValueError(f"it has the value {wrong:g}: expected 0 to {maximum:g}, its value_range")
    levels = np.floor(values * 255.0 / maximum + 0.5).astype(np.uint8)
    if opacity is not None:
        levels = np.concatenate([levels, ((opacity[:, :, None] + 128) // 257).astype(np.uint8)], axis=2)
    return Image.fromarray(levels[:, :, 0] if levels.shape[2] == 1 else levels)


def _both_bytes(path: File, image: Image.Image) -> Values:
    """16-bit values (H, W, C) of an image of several channels."""
    tiles: list[Any] = list(getattr(image, "tile", ()))
    raws = _raw_modes(image)
    if set(raws) == {_GREY_AND_OPACITY}:
        _read_as(image, tiles, ["RGBA"] * len(tiles))
        found = _upright(image).astype(np.int64)
        return found[:, :, 0::2] * 256 + found[:, :, 1::2]
    swapped = [f"{raw[:-1]}{_OTHER_ORDER.get(raw[-1:])}" for raw in raws]
    if not raws or any(raw.partition(";")[0] not in _LAYOUTS or raw[-1] not in _OTHER_ORDER for raw in raws):
        raise ValueError(f"16-bit colours of this layout ({image.format}) are read with 8 bits only: value_range: full")
    image.load()
    with opened(path) as file, Image.open(file) as again:
        _read_as(again, tiles, swapped)
        return _upright(image).astype(np.int64) * 256 + _upright(again)


def _read_as(image: Image.Image, tiles: list[Any], raws: list[str]) -> None:
    """Decodes with other orders of bytes than the file says."""
    changed = []
    for (codec, extents, offset, arguments), raw in zip(tiles, raws, strict=True):
        changed.append((codec, extents, offset, raw if isinstance(arguments, str) else (raw, *arguments[1:])))
    kind = type(tiles[0])
    image.tile = [kind(*tile) if kind is not tuple else tile for tile in changed]  # type: ignore[attr-defined]
    image.load()


def _raw_modes(image: Image.Image) -> list[str]:
    """How the bytes of each tile of an opened image are laid out, where its decoder says."""
    found = []
    for tile in getattr(image, "tile", None) or ():
        arguments = tile[3]
        raw = arguments[0] if isinstance(arguments, (tuple, list)) and arguments else arguments
        found.append(raw if isinstance(raw, str) else "")
    return found


def _upright(image: Image.Image) -> Values:
    return np.asarray(ImageOps.exif_transpose(image))
