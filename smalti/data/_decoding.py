"""From a file to a Pillow image of 8-bit channels, by stated rules; what cannot be read says why.

* Orientation noted by a camera (EXIF) is applied. Of several frames the first is taken.
* 16-bit grey is scaled, v / 257 rounded; Pillow's own conversion would clip it at 255.
* CMYK, palette, grey and one-bit images are converted to the mode that is asked for.
* Alpha is dropped, unless four channels are asked for.
* 32-bit integers and floating-point images have no stated range and count as unreadable.
"""

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

Mode = Literal["L", "RGB", "RGBA"]
Verify = Literal["none", "header", "decode"]

_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82"}


def read_image(path: Path, mode: Mode) -> Image.Image:
    """The image in ``mode``, decoded.

    Raises:
        ValueError: with the reason, if the file is no image that can be decoded.
        OSError: if the file system fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata in files that it then decodes well
        return _decoded(path, mode)


def _decoded(path: Path, mode: Mode) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return _convert(ImageOps.exif_transpose(image), mode)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a failing disk is no damaged file
        raise ValueError(_reason(error)) from error


def defects(files: Sequence[tuple[str, Path]], verify: Verify) -> dict[str, str]:
    """Name -> what is wrong with its file, for those (name, path) that have a defect."""
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as pool:  # waiting for the file system is most of it
        warnings.simplefilter("ignore")
        found = pool.map(lambda file: _defect(file[1], verify), files)
        return {name: reason for (name, _), reason in zip(files, found, strict=True) if reason}


def _defect(path: Path, verify: Verify) -> str | None:
    """Why ``path`` cannot be used, or None.

    ``none`` does not look. ``header`` reads the start of the file, and for JPEG and PNG its end: a file without its end
    marker was cut off, or has something after it; decoding tells. ``decode`` decodes every file.
    """
    if verify == "none":
        return None
    try:
        if verify == "header" and _looks_whole(path):
            return None
        _decoded(path, "RGB")
    except _DAMAGE as error:
        return _reason(error)
    return None


def _looks_whole(path: Path) -> bool:
    """Whether start and end of the file are as they should be; False where only decoding can tell."""
    with path.open("rb") as file:
        with Image.open(file) as image:
            end = _ENDS.get(image.format or "", b"")
            if image.mode in {"I", "F"}:
                return False
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def _convert(image: Image.Image, mode: Mode) -> Image.Image:
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("32-bit integers have no stated range")
        image = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point values have no stated range")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def _reason(error: BaseException) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return (isinstance(error, OSError) and error.strerror) or str(error)
