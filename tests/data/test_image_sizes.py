"""The size that a header tells is the size that is decoded, however odd the file."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smalti.data import UnreadableImageError
from smalti.data.image_folder import ImageFolder


def save(folder: Path, name: str, image: Image.Image, orientation: int | None = None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    image.save(folder / name, **({"exif": exif} if orientation is not None else {}))


def test_what_the_header_says_is_what_is_decoded(tmp_path: Path) -> None:
    colours, grey = Image.new("RGB", (24, 16)), Image.new("L", (24, 16))
    for orientation in range(10):
        for suffix in ("png", "jpg", "webp", "tif"):
            save(tmp_path, f"turned-{orientation}.{suffix}", colours, orientation)
    for name, image in {"grey.png": grey, "palette.gif": grey.convert("P"), "bits.png": grey.convert("1")}.items():
        save(tmp_path, name, image)
    deep = Image.fromarray(np.full((16, 24), 40_000, np.uint16))
    save(tmp_path, "deep.png", deep)
    save(tmp_path, "deep-turned.tif", deep, 6)
    source = ImageFolder(str(tmp_path))
    assert len(source) == 45
    seen = set()
    for index in range(len(source)):
        width, height = source[index]["image"].size
        assert source.size_of(index) == (height, width), source.names[index]
        seen.add((height, width))
    assert seen == {(16, 24), (24, 16)}


def test_a_file_that_is_no_image_any_more_is_named(tmp_path: Path) -> None:
    save(tmp_path, "a.png", Image.new("RGB", (24, 16)))
    source = ImageFolder(str(tmp_path))
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(UnreadableImageError, match=r"a\.png: not an image"):
        source.size_of(0)
