"""Folders as they are found: side folders, tables, and the table of bad input."""

import errno
import logging
import os
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smalti.data import UnreadableImageError
from smalti.data.image_folder import ImageFolder
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.transforms import Transform
from smalti.registry import UserError


def gradient(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 10, rows * 15, columns + rows], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def save(path: Path, image: Image.Image | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or gradient()).save(path, **options)
    return path


def jpeg_bytes(image: Image.Image | None = None) -> bytes:
    buffer = BytesIO()
    (image or gradient(200, 150)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def array(source: ImageFolder, index: int = 0) -> np.ndarray[Any, Any]:
    return np.asarray(source[index]["image"])


# --- what is found


def test_images_are_sorted_by_relative_name_and_searched_deep(tmp_path: Path) -> None:
    for name in ("b.png", "a/z.JPG", "a/b/c.webp", "a.png", ".hidden.png", ".cache/x.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    assert ImageFolder(str(tmp_path)).names == ("a.png", "a/b/c.webp", "a/z.JPG", "b.png")
    assert ImageFolder(str(tmp_path), recursive=False).names == ("a.png", "b.png")
    assert ImageFolder(str(tmp_path), suffixes=[".jpg"]).names == ("a/z.JPG",)


def test_links_are_followed_and_circles_end(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere/x.png")
    save(tmp_path / "images/a.png")
    (tmp_path / "images/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "images")
    assert ImageFolder(str(tmp_path / "images")).names == ("a.png", "link/x.png")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    os.mkfifo(tmp_path / "b.png")
    for verify in ("header", "decode"):
        source = ImageFolder(str(tmp_path), verify=verify)
        assert source.names == ("a.png",)
        assert source.unreadable == ("b.png",)
    with pytest.raises(UnreadableImageError, match=r"b\.png: .* pipe"):
        ImageFolder(str(tmp_path), verify="none")[1]


def test_a_folder_that_cannot_be_opened_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "lost+found/b.png")
    scan = os.scandir

    def closed(path: str) -> Any:  # the superuser opens everything
        if Path(path) == shut:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", closed)
    shut = tmp_path / "lost+found"
    assert ImageFolder(str(tmp_path)).names == ("a.png",)
    assert f"{shut}: Permission denied; the images in this folder are left out" in caplog.text
    shut = tmp_path
    with pytest.raises(UserError, match="Permission denied"):
        ImageFolder(str(tmp_path))


@pytest.mark.parametrize("missing", ["nowhere", "file.txt"])
def test_missing_folder_is_an_error(tmp_path: Path, missing: str) -> None:
    (tmp_path / "file.txt").write_text("")
    with pytest.raises(UserError, match=r"path='.*': (no such folder|is a file, expected a folder)"):
        ImageFolder(str(tmp_path / missing))


def test_empty_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image in this folder"):
        ImageFolder(str(tmp_path))


# --- how odd files are read


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    save(tmp_path / "a.png", Image.new("RGB", (1, 1), (10, 20, 30)))
    source = ImageFolder(str(tmp_path))
    assert array(source).tolist() == [[[10, 20, 30]]]
    batch = next(iter(evaluation_batches(source, Transform(size=16, crop="adm_center"), 1)))
    assert batch["image"].shape == (1, 3, 16, 16)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 257 * 100, 65535]], dtype=np.uint16)
    save(tmp_path / "a.png", Image.fromarray(values))
    assert array(ImageFolder(str(tmp_path), image_channels=1)).tolist() == [[0, 0, 1, 100, 255]]
    assert array(ImageFolder(str(tmp_path)))[0, 3].tolist() == [100, 100, 100]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    save(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    assert np.abs(array(ImageFolder(str(tmp_path)))[4, 4].astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_what_is_asked_for(tmp_path: Path, mode: str) -> None:
    image = gradient(mode=mode)
    save(tmp_path / "a.png", image)
    for channels, target in ((1, "L"), (3, "RGB"), (4, "RGBA")):
        source = ImageFolder(str(tmp_path), image_channels=channels)  # type: ignore[arg-type]
        assert source[0]["image"].mode == target
        assert source.image_channels == channels
        assert np.array_equal(array(source), np.asarray(image.convert(target)))


def test_transparent_palette_is_read_without_a_warning(tmp_path: Path) -> None:
    image = gradient().quantize(4)
    save(tmp_path / "a.png", image, transparency=bytes([0, 128, 255, 255]))
    assert array(ImageFolder(str(tmp_path), image_channels=4)).shape == (16, 24, 4)
    assert array(ImageFolder(str(tmp_path))).shape == (16, 24, 3)


def test_orientation_of_the_camera_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "a.png", gradient(24, 16), exif=exif)
    assert np.array_equal(array(ImageFolder(str(tmp_path))), np.rot90(np.asarray(gradient(24, 16)), -1))


# --- what cannot be read


def truncated(path: Path) -> None:
    path.write_bytes(jpeg_bytes()[:-1500])


def truncated_png(path: Path) -> None:
    buffer = BytesIO()
    gradient(60, 60).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:-60])


def text(path: Path) -> None:
    path.write_text("this is no image")


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def floating(path: Path) -> None:
    buffer = BytesIO()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(buffer, "TIFF")
    path.write_bytes(buffer.getvalue())


@pytest.mark.parametrize(
    ("write", "reason"),
    [
        (truncated, "truncated"),
        (truncated_png, "truncated|broken"),
        (text, "not an image"),
        (nothing, "not an image"),
        (floating, "floating-point"),
    ],
)
def test_unreadable_files_are_counted_named_once_and_left_out(
    tmp_path: Path, write: Callable[[Path], None], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "a.png")
    write(tmp_path / "bad.jpg")
    save(tmp_path / "c.png")
    with caplog.at_level(logging.WARNING, "smalti"):
        source = ImageFolder(str(tmp_path))
        assert len([source[index] for index in range(len(source))]) == 2
    assert source.names == ("a.png", "c.png")
    assert source.unreadable == ("bad.jpg",)
    assert len(caplog.records) == 1
    assert "1 of 3 images" in caplog.text
    assert "bad.jpg" in caplog.text
    assert any(word in caplog.text for word in reason.split("|"))


def test_bytes_after_the_end_of_an_image_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes() + b"\0" * 100)
    source = ImageFolder(str(tmp_path))
    assert not source.unreadable
    assert source[0]["image"].size == (200, 150)


def test_folder_of_damaged_files_only_is_an_error(tmp_path: Path) -> None:
    for number in range(30):
        text(tmp_path / f"{number:02}.jpg")
    with pytest.raises(
        UserError, match=r"none of the 30 images in .* can be read: 00.jpg \(not an image\), .* 10 more$"
    ):
        ImageFolder(str(tmp_path))


def test_forbidden_file_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    allowed = Path.open

    def opened(path: Path, *arguments: Any, **options: Any) -> Any:  # root reads what permissions forbid
        if path.name == "b.png":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return allowed(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", opened)
    assert ImageFolder(str(tmp_path)).unreadable == ("b.png",)


def damaged_inside(path: Path) -> None:
    """Start and end are right, the pixels are not."""
    buffer = BytesIO()
    gradient(60, 60).save(buffer, "PNG")
    data = bytearray(buffer.getvalue())
    middle = data.index(b"IDAT") + 10
    data[middle : middle + 20] = b"\xff" * 20
    path.write_bytes(data)


def test_damage_that_the_header_hides_shows_when_it_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path / "a.png")
    damaged_inside(tmp_path / "b.png")
    save(tmp_path / "c.png", gradient(8, 8))
    source = ImageFolder(str(tmp_path))
    assert len(source) == 3
    with pytest.raises(UnreadableImageError, match=r"b\.png"):
        source[1]
    batches = BatchLoader(source, Transform(size=8, crop="random"), batch_size=3, seed=0).batches()
    for _ in range(4):
        assert sorted(next(batches)["index"].tolist()) == [0, 2, 2]
    assert caplog.text.count("b.png") == 1
    assert [batch["index"].tolist() for batch in evaluation_batches(source, Transform(), 1)] == [[0], [2]]
    assert ImageFolder(str(tmp_path), verify="decode").unreadable == ("b.png",)


def test_file_that_vanished_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    source = ImageFolder(str(tmp_path), verify="none")
    (tmp_path / "a.png").unlink()
    with pytest.raises(UserError, match=r"a\.png: No such file") as caught:
        source[0]
    assert not isinstance(caught.value, UnreadableImageError)


def test_without_verification_everything_is_listed(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    text(tmp_path / "b.jpg")
    assert ImageFolder(str(tmp_path), verify="none").names == ("a.png", "b.jpg")


# --- side folders


def test_side_folders_become_columns(tmp_path: Path) -> None:
    save(tmp_path / "images/x/a.jpg")
    save(tmp_path / "masks/x/a.png", gradient(mode="1"))
    save(tmp_path / "edges/x/a.jpg", gradient(mode="L"))
    folders = {"mask": str(tmp_path / "masks"), "condition": str(tmp_path / "edges")}
    source = ImageFolder(str(tmp_path / "images"), columns=folders)
    assert source.columns == ("image", "mask", "condition")
    assert {name: value.mode for name, value in source[0].items()} == {"image": "RGB", "mask": "L", "condition": "RGB"}
    batch = next(BatchLoader(source, Transform(size=8, crop="random"), batch_size=2, seed=0).batches())
    assert batch["mask"].shape == (2, 1, 8, 8)
    assert batch["condition"].shape == (2, 3, 8, 8)


def test_side_folder_inside_the_folder_holds_no_images(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    save(tmp_path / "masks/a.png")
    assert ImageFolder(str(tmp_path), columns={"mask": str(tmp_path / "masks")}).names == ("a.png",)


def test_missing_side_file_is_an_error(tmp_path: Path) -> None:
    for number in range(8):
        save(tmp_path / f"images/{number}.png")
    save(tmp_path / "masks/0.png")
    with pytest.raises(UserError, match=r"columns\.mask='.*': no file for 7 images: 1.png, 2.png, .* and 2 more$"):
        ImageFolder(str(tmp_path / "images"), columns={"mask": str(tmp_path / "masks")})
    with pytest.raises(UserError, match=r"columns\.mask='.*': no such folder"):
        ImageFolder(str(tmp_path / "images"), columns={"mask": str(tmp_path / "nowhere")})


def test_ambiguous_side_file_is_an_error_unless_one_has_the_same_name(tmp_path: Path) -> None:
    save(tmp_path / "images/a.webp")
    save(tmp_path / "masks/a.png")
    save(tmp_path / "masks/a.bmp")
    folders = {"mask": str(tmp_path / "masks")}
    with pytest.raises(UserError, match=r"a\.bmp and a\.png in .* both belong to a\.webp"):
        ImageFolder(str(tmp_path / "images"), columns=folders)
    save(tmp_path / "masks/a.webp")
    assert len(ImageFolder(str(tmp_path / "images"), columns=folders)) == 1


def test_image_with_a_damaged_side_file_is_left_out(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        save(tmp_path / "images" / name)
    save(tmp_path / "masks/a.png")
    text(tmp_path / "masks/b.png")
    source = ImageFolder(str(tmp_path / "images"), columns={"mask": str(tmp_path / "masks")})
    assert source.names == ("a.png",)
    assert source.unreadable == ("b.png",)


def test_columns_may_not_hide_others(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png")
    with pytest.raises(UserError, match="column 'index' exists already"):
        ImageFolder(str(tmp_path / "images"), columns={"index": str(tmp_path / "images")})


# --- tables


def with_table(tmp_path: Path, content: str) -> ImageFolder:
    for name in ("a.png", "b/c.png"):
        save(tmp_path / "images" / name)
    (tmp_path / "table.csv").write_text(content)
    return ImageFolder(str(tmp_path / "images"), table=str(tmp_path / "table.csv"))


def test_table_becomes_columns(tmp_path: Path) -> None:
    content = (
        '\ufefffile,weight,label,text,score,tag\nb/c.png,0.5,3,"a cat, grey",1.5,x\na.png,2,1,7,2,9\nother.png,1,1,,,\n'
    )
    source = with_table(tmp_path, content)
    assert source.columns == ("image", "weights", "label", "text", "score", "tag")
    first, second = ({name: value for name, value in source[index].items() if name != "image"} for index in (0, 1))
    assert first == {"weights": 2.0, "label": 1, "text": "7", "score": 2.0, "tag": "9"}
    assert second == {"weights": 0.5, "label": 3, "text": "a cat, grey", "score": 1.5, "tag": "x"}
    batch = next(iter(evaluation_batches(source, Transform(), 2)))
    assert batch["weights"].tolist() == [2.0, 0.5]
    assert batch["label"].tolist() == [1, 3]
    assert batch["text"] == ["7", "a cat, grey"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no column 'file', only an empty first line"),
        ("name,label\na.png,1\n", "no column 'file', only name, label"),
        ("file,label\na.png,1\n", "no row for 1 images: b/c.png"),
        ("file,label\na.png,1\nb/c.png,2\na.png,1\n", "more than one row for a.png"),
        ("file,label\na.png,1\nb/c.png,cat\n", "label of b/c.png is 'cat', expected a whole number"),
        ("file,weight\na.png,-1\nb/c.png,1\n", "weight of a.png is '-1', expected a number >= 0"),
        ("file,weight\na.png,nan\nb/c.png,1\n", "weight of a.png is 'nan', expected a number >= 0"),
        ("file,image\na.png,1\nb/c.png,1\n", "column 'image' exists already"),
    ],
)
def test_mistakes_in_a_table_are_named(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        with_table(tmp_path, content)


def test_missing_table_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "images/a.png")
    with pytest.raises(UserError, match=r"table='.*nowhere.csv': No such file"):
        ImageFolder(str(tmp_path / "images"), table=str(tmp_path / "nowhere.csv"))


def test_channels_other_than_1_3_4_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="image_channels=2: expected 1, 3 or 4"):
        ImageFolder(str(tmp_path), image_channels=2)  # type: ignore[arg-type]
