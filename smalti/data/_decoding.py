"""From a file to a Pillow image of 8-bit channels, by stated rules; what cannot be read says why.

* Orientation noted by a camera (EXIF) is applied. Of several frames, pages or pictures the first is taken.
* An image with more pixels than are allowed is told by its header and never decoded.
* 16-bit grey is scaled, v / 257 rounded; Pillow's own conversion would clip it at 255. Of 16-bit colours the upper 8
  bits are taken. With a stated largest value both are scaled by it, v 255 / largest rounded.
* CMYK, palette, grey and one-bit images are converted to the mode that is asked for.
* Alpha (a channel, a transparent colour or a palette with opacities) is dropped, or composited onto one colour, unless
  four channels are asked for.
* 32-bit integers and floating-point images have no range, unless one is stated, and count as unreadable.
"""

import os
import re
import struct
import warnings
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Annotated, BinaryIO, Literal, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from pydantic import AfterValidator, Field

from smalti.data._depth import FULL, File, is_deep, is_one_channel, opened, samples, to_eight_bits, type_maximum

Mode = Literal["L", "RGB", "RGBA"]
Verify = Literal["none", "header", "decode"]
ValueRange = Literal["full"] | Annotated[int, Field(ge=1)]
MaxPixels = Annotated[int, Field(ge=1)]

MAX_PIXELS = 100_000_000
_BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}
_LOOKED_AT = 16
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82"}
_CONTAINERS = (b"\0\0\1\0", b"\0\0\2\0", b"icns")  # of icons: decoded as they are opened, larger than they say
_PILLOW = RLock()


def check_background(value: str) -> str:
    """``value`` if it says what is done with alpha.

    Raises:
        ValueError: if it does not.

    >>> check_background("255,128,0")
    '255,128,0'
    """
    if value not in {"drop", *_BACKGROUNDS} and _colour(value) is None:
        raise ValueError("drop, white, black or a colour r,g,b of numbers from 0 to 255")
    return value


Background = Annotated[str, AfterValidator(check_background)]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """By which options files are read.

    Args:
        max_pixels: images with more pixels than this are not decoded.
        value_range: of channels of more than 8 bits: ``full``, or the largest value, which becomes white.
        background: ``drop`` leaves alpha out; ``white``, ``black`` or ``r,g,b`` is what shows through.
    """

    max_pixels: int = MAX_PIXELS
    value_range: Literal["full"] | int = "full"
    background: str = "drop"

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels={self.max_pixels!r}: expected at least 1")
        if self.value_range != "full" and (not isinstance(self.value_range, int) or self.value_range < 1):
            raise ValueError(f"value_range={self.value_range!r}: expected 'full' or a whole number >= 1")
        try:
            check_background(self.background)
        except ValueError as error:
            raise ValueError(f"background={self.background!r}: expected {error}") from None

    @property
    def colour(self) -> tuple[int, int, int] | None:
        """What shows through; None: alpha is dropped."""
        return _BACKGROUNDS.get(self.background) or _colour(self.background)


def read_size(file: File, reading: Reading | None = None) -> tuple[int, int]:
    """Height and width that ``read_image`` would give, from the header of the file where that is enough.

    Raises:
        ValueError: with the reason, if the file is no image.
        OSError: if the file system fails.
    """
    reading = reading or Reading()
    with _read_from(reading):
        with opened(file) as stream, _opened(stream, reading) as image:
            width, height = image.size
            turned = image.getexif().get(ExifTags.Base.Orientation) in {5, 6, 7, 8}
            if not turned and not is_deep(image):
                return height, width
            if not is_deep(image) and image.format != "TIFF":  # of TIFF Pillow turns the size itself, or does not
                return width, height
        width, height = _decoded(file, "RGB", reading).size
        return height, width


class Survey(NamedTuple):
    """What a first look at files found: name -> what is wrong, and the names of those with more than 8 bits."""

    defects: dict[str, str]
    deep: list[str]


def read_image(file: File, mode: Mode, reading: Reading | None = None) -> Image.Image:
    """The image in ``mode``, decoded.

    Args:
        file: a path, or the content of a file.
        mode: of Pillow.
        reading: by which options.

    Raises:
        ValueError: with the reason, if the file is no image that can be decoded.
        OSError: if the file system fails.
    """
    reading = reading or Reading()
    if mode == "RGBA" and reading.colour is not None:
        raise ValueError(f"background={reading.background!r}: expected 'drop' where alpha is kept")
    with _read_from(reading):
        return _decoded(file, mode, reading)


def survey(files: Sequence[tuple[str, Path]], verify: Verify, reading: Reading) -> Survey:
    """Looks at all files, each with a name; with ``none`` only at how deep a few of them are."""
    with _prepared(reading), ThreadPoolExecutor(8) as pool:  # waiting for the file system is most of it
        looked_at = spread(files) if verify == "none" else files
        found = list(pool.map(lambda file: _look(file[1], verify, reading), looked_at))
    defects = {name: reason for (name, _), (reason, _) in zip(looked_at, found, strict=True) if reason}
    return Survey(defects, [name for (name, _), (_, deep) in zip(looked_at, found, strict=True) if deep])


def gap(files: Sequence[Path], reading: Reading) -> str | None:
    """What to say where the largest value in deep images is under a quarter of what their type holds; None elsewhere.

    Where a range was stated, and of files with 8 bits, there is nothing to say.
    """
    if reading.value_range != "full" or not files:
        return None
    with _prepared(reading), ThreadPoolExecutor(8) as pool:
        found = [values for values in pool.map(lambda path: _largest(path, reading), files) if values]
    largest, most = max(found, key=lambda values: values[0] / values[1], default=(1, 1))
    if not 0 < largest * 4 < most:
        return None
    levels = int(np.floor(largest * 255.0 / most + 0.5)) + 1
    wanted = max(2 ** largest.bit_length() - 1, 1)
    return f"values up to {largest} of {most} become {levels} of 256 levels; value_range: {wanted} would use all"


def spread(files: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """A few of the files, evenly spread."""
    step = -(-len(files) // _LOOKED_AT) or 1
    return list(files[::step])


@contextmanager
def _read_from(reading: Reading) -> Iterator[None]:
    """Within, what is wrong with a file is a ``ValueError`` that says so."""
    with _prepared(reading):
        try:
            yield
        except _DAMAGE as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise  # a failing disk is no damaged file
            raise ValueError(_reason(error, reading)) from error


@contextmanager
def _prepared(reading: Reading) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata in files that it then decodes well
        before = Image.MAX_IMAGE_PIXELS
        if before is None or reading.max_pixels <= 2 * before:
            yield
            return
        with _pillow_allows(reading.max_pixels):
            yield


@contextmanager
def _pillow_allows(pixels: int) -> Iterator[None]:
    """Pillow refuses what is over twice a number of its own, which is one for the whole process."""
    with _PILLOW:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = max(pixels // 2, 1)
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decoded(content: File, mode: Mode, reading: Reading) -> Image.Image:
    with opened(content) as file, _opened(file, reading) as image:
        if is_deep(image):
            made = _shallow(content, image, reading)
        else:
            image.load()
            made = ImageOps.exif_transpose(image)
    return _convert(made, mode, reading)


@contextmanager
def _opened(file: BinaryIO, reading: Reading) -> Iterator[Image.Image]:
    """An image of allowed size, of which no more than the header was looked at."""
    bound = _pillow_allows(reading.max_pixels) if file.read(4) in _CONTAINERS else nullcontext()
    file.seek(0)
    with bound, Image.open(file) as image:
        _check_size(image, reading)
        yield image


def _check_size(image: Image.Image, reading: Reading) -> None:
    width, height = image.size
    if width * height > reading.max_pixels:
        raise ValueError(f"{width} x {height} pixels: {_allowed(reading)}")


def _allowed(reading: Reading) -> str:
    return f"max_pixels allows {reading.max_pixels / 1e6:g} megapixels"


def _shallow(content: File, image: Image.Image, reading: Reading) -> Image.Image:
    """An image of more than 8 bits a channel with 8 of them."""
    stated = "full" if image.format == "PPM" else reading.value_range  # such a file says its own largest value
    maximum = type_maximum(image) if stated == "full" else stated
    grey = is_one_channel(image)
    if stated == "full" and not grey and "transparency" not in image.info:
        image.load()
        return ImageOps.exif_transpose(image)
    if stated == "full" and image.mode == "F":
        raise ValueError("floating-point values have no stated range")
    values, opacity = samples(content, image)
    if stated == "full" and grey and (values.min() < 0 or values.max() > FULL):
        raise ValueError("32-bit integers have no stated range")
    return to_eight_bits(values, opacity, maximum)


def _convert(image: Image.Image, mode: Mode, reading: Reading) -> Image.Image:
    transparent = "transparency" in image.info or image.mode in {"LA", "La", "PA", "RGBA", "RGBa"}
    if transparent and reading.colour is not None and mode != "RGBA":
        background = Image.new("RGBA", image.size, (*reading.colour, 255))
        image = Image.alpha_composite(background, _with_alpha(image)).convert("RGB")
    elif image.mode in {"P", "PA"} and transparent:
        image = _with_alpha(image)
    return image if image.mode == mode else image.convert(mode)


def _with_alpha(image: Image.Image) -> Image.Image:
    return image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")


def _look(path: Path, verify: Verify, reading: Reading) -> tuple[str | None, bool]:
    """Why ``path`` cannot be used, or None, and whether it has more than 8 bits a channel.

    ``none`` finds no defect. ``header`` reads the start of the file, and for JPEG and PNG its end: a file without its
    end marker was cut off, or has something after it; decoding tells. ``decode`` decodes every file.
    """
    deep = False
    try:
        with opened(path) as file:
            with _opened(file, reading) as image:
                deep = is_deep(image)
                if verify == "none":
                    return None, deep
                end = _ENDS.get(image.format or "", b"")
                doubtful = image.mode in {"I", "F"}
            file.seek(-len(end), os.SEEK_END)
            if verify == "header" and not doubtful and file.read() == end:
                return None, deep
        _decoded(path, "RGB", reading)
    except _DAMAGE as error:
        return None if verify == "none" else _reason(error, reading), deep
    return None, deep


def _largest(path: Path, reading: Reading) -> tuple[int, int] | None:
    try:
        with opened(path) as file, _opened(file, reading) as image:
            if image.mode == "F" or not is_deep(image):
                return None
            most = type_maximum(image)
            values, _ = samples(path, image)
    except _DAMAGE:
        return None
    return int(values.max()), most


def _colour(text: str) -> tuple[int, int, int] | None:
    """Red, green and blue of ``r,g,b``; None if it is no colour."""
    found = re.fullmatch(r"\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*", text, re.ASCII)
    if found is None:
        return None
    red, green, blue = map(int, found.groups())
    return (red, green, blue) if max(red, green, blue) <= 255 else None


def _reason(error: BaseException, reading: Reading) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, Image.DecompressionBombError):
        return f"{str(error).partition(' exceeds')[0]}: {_allowed(reading)}"
    return (isinstance(error, OSError) and error.strerror) or str(error)
