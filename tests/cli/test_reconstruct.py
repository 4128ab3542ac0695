"""``smalti reconstruct``: pictures of the size of the originals."""

from pathlib import Path

import pytest
import torch
from PIL import Image

import smalti
from smalti.cli.reconstruct import open_image
from smalti.data.grid import to_uint8
from tests.cli.conftest import Verb


@pytest.mark.parametrize("size", [(24, 16), (23, 17), (1, 1)])
def test_pictures_are_what_the_model_makes(
    smalti_cli: Verb, trained: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    source = tmp_path / "cat.png"
    Image.radial_gradient("L").resize(size).convert("RGB").save(source)
    result = smalti_cli("reconstruct", trained, source, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert " dB" in result.stdout
    made = smalti.load(trained).reconstruct(open_image(source, 3))
    written = open_image(tmp_path / "out" / "cat.png", 3)
    assert torch.equal(to_uint8(written), to_uint8(made))


def test_side_by_side_is_twice_as_wide(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    images = [photos / "a.png", photos / "below" / "b.png"]
    assert smalti_cli("reconstruct", trained, *images, "--out", tmp_path, "--side-by-side").exit_code == 0
    with Image.open(tmp_path / "b.png") as picture:
        assert picture.size == (2 * 32 + 4, 32)


def test_nothing_is_written_over(smalti_cli: Verb, trained: Path, photos: Path) -> None:
    before = (photos / "a.png").read_bytes()
    result = smalti_cli("reconstruct", trained, photos / "a.png", "--out", photos)
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert (photos / "a.png").read_bytes() == before


def test_two_images_of_one_name_are_refused(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    result = smalti_cli("reconstruct", trained, photos / "a.png", photos / "x" / "a.jpg", "--out", tmp_path)
    assert result.exit_code == 2
    assert "two images" in result.stderr
