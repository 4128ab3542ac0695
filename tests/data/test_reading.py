"""How files become pixels: those that are too large, those of 16 bits, those one can see through."""

import logging
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from smalti.config import ConfigError, Validator
from smalti.data import ImageSource, UnreadableImageError
from smalti.data._decoding import Reading, read_image
from smalti.data.image_folder import SUFFIXES, ImageFolder
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.transforms import Transform

Array = np.ndarray[Any, np.dtype[Any]]
SIDE = 24
LIMIT = SIDE * SIDE - 1
SUFFIXES_AND_ICONS = (*SUFFIXES, ".ico")


def picture(side: int = SIDE, mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[:side, :side]
    return Image.fromarray(np.stack([rows * 9, columns * 9, rows + columns], axis=2).astype(np.uint8)).convert(mode)


def png16(values: Array, key: tuple[int, ...] = ()) -> bytes:
    """A PNG of 16 bits a channel of (H, W, C): Pillow itself writes none with several channels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    transparent = chunk(b"tRNS", struct.pack(f">{len(key)}H", *key)) if key else b""
    parts = (chunk(b"IHDR", header), transparent, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def tiff16(values: Array, order: str = "<") -> bytes:
    """An uncompressed TIFF of 16 bits a channel, three channels, in one strip."""
    height, width, channels = values.shape
    pixels = values.astype(f"{order}u2").tobytes()
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, 0), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(273, 4, 1, 0), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    after = 8 + 2 + 12 * len(entries) + 4
    offsets = {258: after, 273: after + 2 * channels}
    directory = b""
    for tag, kind, count, value in entries:
        number = offsets.get(tag, value)
        packed = struct.pack(f"{order}HH", number, 0) if kind == 3 and count == 1 else struct.pack(f"{order}I", number)
        directory += struct.pack(f"{order}HHI", tag, kind, count) + packed
    mark = b"II*\0" if order == "<" else b"MM\0*"
    depths = struct.pack(f"{order}{channels}H", *[16] * channels)
    head = mark + struct.pack(f"{order}I", 8) + struct.pack(f"{order}H", len(entries))
    return head + directory + b"\0\0\0\0" + depths + pixels


# --- images that are too large

BOMBS: dict[str, Callable[[Path], None]] = {
    "a.png": lambda path: picture().save(path),
    "a.jpg": lambda path: picture().save(path),
    "a.bmp": lambda path: picture().save(path),
    "a.ppm": lambda path: picture().save(path),
    "animated.gif": lambda path: picture(mode="P").save(path, save_all=True, append_images=[picture(mode="L")]),
    "animated.webp": lambda path: picture().save(path, save_all=True, append_images=[picture(mode="L")]),
    "pages.tif": lambda path: picture().save(path, save_all=True, append_images=[picture(4)]),
    "a.ico": lambda path: picture().save(path, sizes=[(SIDE, SIDE)]),
    "mpo.jpg": lambda path: picture().save(path, "MPO", save_all=True, append_images=[picture(mode="L")]),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("verify", ["none", "header", "decode"])
def test_an_image_with_too_many_pixels_is_never_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, verify: Any
) -> None:
    BOMBS[name](tmp_path / name)
    picture(8).save(tmp_path / "small.png")
    decoded: list[int] = []
    load = ImageFile.ImageFile.load
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda image: decoded.append(image.width) or load(image))
    with caplog.at_level(logging.WARNING, "smalti"):
        source = ImageFolder(str(tmp_path), verify=verify, max_pixels=LIMIT, suffixes=SUFFIXES_AND_ICONS)
        loader = BatchLoader(source, Transform(size=8, crop="resize"), batch_size=4, seed=0)
        assert set(next(loader.batches())["index"].tolist()) == {source.names.index("small.png")}
    assert SIDE not in decoded
    lines = [record.message for record in caplog.records if name in record.message]
    assert len(lines) == 1
    assert "max_pixels allows 0.000575 megapixels" in lines[0]
    assert f"{SIDE} x {SIDE} pixels" in lines[0] or name == "a.ico"
    assert name in ImageFolder(str(tmp_path), verify=verify, max_pixels=LIMIT + 1, suffixes=SUFFIXES_AND_ICONS).names


@pytest.mark.parametrize("column", ["mask", "condition"])
def test_a_side_image_with_too_many_pixels_leaves_its_item_out(tmp_path: Path, column: str) -> None:
    for folder, side in (("images", 8), ("sides", 8)):
        (tmp_path / folder).mkdir()
        for name in "ab":
            picture(side).save(tmp_path / folder / f"{name}.png")
    picture().save(tmp_path / "sides" / "a.png")
    options: Any = {"columns": {column: str(tmp_path / "sides")}, "max_pixels": LIMIT}
    source = ImageFolder(str(tmp_path / "images"), **options)
    assert (source.names, source.unreadable) == (("b.png",), ("a.png",))
    unseen = ImageFolder(str(tmp_path / "images"), verify="none", **options)
    with pytest.raises(UnreadableImageError, match="max_pixels"):
        unseen[0]


def test_what_is_inside_of_a_container_counts_too(tmp_path: Path) -> None:
    inner = BytesIO()
    picture(200).save(inner, "PNG")
    directory = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner.getvalue()), 22)
    (tmp_path / "a.ico").write_bytes(directory + inner.getvalue())
    with pytest.raises(ValueError, match=r"40000 pixels\): max_pixels allows 0.01 megapixels"):
        read_image(tmp_path / "a.ico", "RGB", Reading(max_pixels=10_000))
    assert Image.MAX_IMAGE_PIXELS == 89478485


def test_the_limit_can_be_above_that_of_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match=r"576 pixels\): max_pixels allows 0.00015 megapixels"):
        read_image(tmp_path / "a.png", "RGB", Reading(max_pixels=150))
    assert read_image(tmp_path / "a.png", "RGB").size == (SIDE, SIDE)
    assert ImageFolder(str(tmp_path)).names == ("a.png",)
    assert Image.MAX_IMAGE_PIXELS == 100


# --- 16 bits

TWELVE = np.arange(0, 4096, 64).reshape(8, 8, 1)
LEVELS = np.rint(TWELVE * 255 / 4095).astype(np.uint8)
DEEP: dict[str, bytes] = {
    "grey.png": png16(TWELVE),
    "grey and alpha.png": png16(np.concatenate([TWELVE, TWELVE * 0 + 65535], axis=2)),
    "colour.png": png16(np.repeat(TWELVE, 3, axis=2)),
    "colour and alpha.png": png16(np.concatenate([np.repeat(TWELVE, 3, axis=2), TWELVE * 0 + 65535], axis=2)),
    "colour little.tif": tiff16(np.repeat(TWELVE, 3, axis=2), "<"),
    "colour big.tif": tiff16(np.repeat(TWELVE, 3, axis=2), ">"),
}


@pytest.mark.parametrize("name", DEEP)
@pytest.mark.parametrize("verify", ["none", "header", "decode"])
def test_twelve_bits_in_sixteen_use_all_levels(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, verify: Any
) -> None:
    (tmp_path / name).write_bytes(DEEP[name])
    with caplog.at_level(logging.WARNING, "smalti"):
        source = ImageFolder(str(tmp_path), value_range=4095, verify=verify)
        assert not caplog.records
        ImageFolder(str(tmp_path), verify=verify)
    said = "in 1 that were looked at, values up to 4032 of 65535 become 17 of 256 levels; value_range: 4095 would use"
    assert [said in record.message for record in caplog.records] == [True]
    assert np.array_equal(np.asarray(source[0]["image"]), np.repeat(LEVELS, 3, axis=2))
    grey = ImageFolder(str(tmp_path), value_range=4095, image_channels=1)
    assert np.array_equal(np.asarray(grey[0]["image"]), LEVELS[:, :, 0])


def test_a_packed_tiff_of_twelve_bits_says_its_range(tmp_path: Path) -> None:
    values = np.array([[0, 2048, 4095, 1024]])
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xF4, 0x00])
    entries = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6)]
    head = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(entries))
    body = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    (tmp_path / "a.tif").write_bytes(head + body + b"\0\0\0\0")
    found = np.asarray(read_image(tmp_path / "a.tif", "L"))
    assert np.array_equal(found, np.rint(values * 255 / 4095))


def test_a_file_that_says_its_largest_value_needs_no_range(tmp_path: Path) -> None:
    head = b"P5 8 8 4095\n"
    (tmp_path / "a.pgm").write_bytes(head + TWELVE.astype(">u2").tobytes())
    for reading in (Reading(), Reading(value_range=4095)):
        found = np.asarray(read_image(tmp_path / "a.pgm", "L", reading)).astype(int)
        assert np.abs(found - LEVELS[:, :, 0]).max() <= 1


def test_values_over_the_stated_range_are_told_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png16(TWELVE + 1))
    source = ImageFolder(str(tmp_path), value_range=4000)
    with pytest.raises(UnreadableImageError, match="it has the value 4033: expected 0 to 4000, its value_range"):
        source[0]


def test_a_stated_range_lets_whole_and_floating_numbers_be_read(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 500, 1000]], dtype=np.int32)).save(tmp_path / "whole.tif")
    Image.fromarray(np.array([[0, 500, 1000]], dtype=np.float32)).save(tmp_path / "floating.tif")
    for name in ("whole.tif", "floating.tif"):
        found = np.asarray(read_image(tmp_path / name, "L", Reading(value_range=1000)))
        assert found.tolist() == [[0, 128, 255]]
    Image.fromarray(np.array([[0, np.nan]], dtype=np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(ValueError, match="it has the value nan"):
        read_image(tmp_path / "nan.tif", "L", Reading(value_range=1000))


def test_eight_bits_and_masks_are_left_as_they_are(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    picture().save(tmp_path / "images" / "a.png")
    full = np.full((SIDE, SIDE, 1), 65535)
    (tmp_path / "masks" / "a.png").write_bytes(png16(full))
    source = ImageFolder(str(tmp_path / "images"), columns={"mask": str(tmp_path / "masks")}, value_range=4095)
    item = source[0]
    assert np.array_equal(np.asarray(item["image"]), np.asarray(picture()))
    assert np.asarray(item["mask"]).min() == 255


# --- alpha


def _palette() -> bytes:
    buffer = BytesIO()
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 0])
    image.save(buffer, "PNG", transparency=bytes([0, 255]))
    return buffer.getvalue()


def _saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# every image has one transparent pixel, left, and perhaps others
SEEN_THROUGH: dict[str, bytes] = {
    "rgba.png": _saved(Image.new("RGBA", (2, 1), (200, 0, 0, 0))),
    "la.png": _saved(Image.new("LA", (2, 1), (200, 0))),
    "palette.png": _palette(),
    "palette.gif": _saved(Image.new("P", (2, 1)), "GIF", transparency=0),
    "key.png": _saved(Image.new("RGB", (2, 1), (200, 0, 0)), transparency=(200, 0, 0)),
    "grey key.png": _saved(Image.new("L", (2, 1), 200), transparency=200),
    "rgba.webp": _saved(Image.new("RGBA", (2, 1), (200, 0, 0, 0)), "WEBP", lossless=True, exact=True),
    "rgba.tif": _saved(Image.new("RGBA", (2, 1), (200, 0, 0, 0)), "TIFF"),
    "deep rgba.png": png16(np.array([[[50000, 0, 0, 0], [50000, 0, 0, 0]]])),
    "deep la.png": png16(np.array([[[50000, 0], [50000, 0]]])),
    "deep key.png": png16(np.array([[[50000, 7, 8], [50000, 7, 9]]]), key=(50000, 7, 8)),
    "deep grey key.png": png16(np.array([[[50000], [50001]]]), key=(50000,)),
}


@pytest.mark.parametrize("name", SEEN_THROUGH)
@pytest.mark.parametrize(
    ("background", "colour"), [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("10, 20,30", (10, 20, 30))]
)
def test_a_background_shows_through(tmp_path: Path, name: str, background: str, colour: tuple[int, ...]) -> None:
    (tmp_path / name).write_bytes(SEEN_THROUGH[name])
    source = ImageFolder(str(tmp_path), background=background)
    assert source[0]["image"].getpixel((0, 0)) == colour
    if name in {"deep key.png", "deep grey key.png"}:
        assert source[0]["image"].getpixel((1, 0))[0] == 195
    grey = ImageFolder(str(tmp_path), background=background, image_channels=1)
    assert grey[0]["image"].getpixel((0, 0)) == Image.new("RGB", (1, 1), colour).convert("L").getpixel((0, 0))
    dropped = ImageFolder(str(tmp_path))[0]["image"].getpixel((0, 0))
    assert dropped != colour or name == "palette.gif"


def test_half_of_what_is_seen_is_the_background(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png16(np.array([[[65535, 0, 0, 32768]]])))
    assert read_image(tmp_path / "a.png", "RGB", Reading(background="0,0,255")).getpixel((0, 0)) == (128, 0, 127)
    opaque = picture()
    opaque.save(tmp_path / "b.png")
    found = read_image(tmp_path / "b.png", "RGB", Reading(background="white"))
    assert np.array_equal(np.asarray(found), np.asarray(opaque))


def test_batches_of_a_folder_have_the_background(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_saved(Image.new("RGBA", (8, 8), (200, 0, 0, 0))))
    source = ImageFolder(str(tmp_path), background="white")
    batch = next(evaluation_batches(source, Transform(), 1))
    assert batch["image"].min() == 255


# --- options

WRONG = [
    ("background", "grey"),
    ("background", "1,2"),
    ("background", "1,2,256"),
    ("background", 3),
    ("value_range", 0),
    ("value_range", "half"),
    ("value_range", 1.5),
    ("max_pixels", 0),
    ("max_pixels", "all"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_options_are_checked_before_a_folder_is_read(name: str, value: Any) -> None:
    validator = Validator()
    validator.value({"type": "image_folder", "path": "nowhere", name: value}, ImageSource, "data.source")
    assert [problem.place for problem in validator.problems] == [f"data.source.{name}"]
    assert "expected" in validator.problems[0].message


@pytest.mark.parametrize(("name", "value"), [pair for pair in WRONG if pair[1] not in (3, "all")])
def test_options_are_checked_in_python_too(tmp_path: Path, name: str, value: Any) -> None:
    picture().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=f"{name}=.*expected"):
        ImageFolder(str(tmp_path), **{name: value})


def test_four_channels_keep_alpha_and_have_no_background(tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="background='white': expected 'drop' with image_channels=4"):
        ImageFolder(str(tmp_path), background="white", image_channels=4)
    with pytest.raises(ValueError, match="where alpha is kept"):
        read_image(tmp_path / "a.png", "RGBA", Reading(background="white"))
    assert issubclass(ConfigError, ValueError)
