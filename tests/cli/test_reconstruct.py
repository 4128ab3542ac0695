"""``smalti reconstruct``: pictures of the size of the originals."""

from pathlib import Path

import numpy as np
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


@pytest.mark.parametrize("verb", ["reconstruct", "evaluate", "encode", "latent-stats"])
def test_every_verb_reads_files_by_the_same_options(smalti_cli: Verb, trained: Path, tmp_path: Path, verb: str) -> None:
    (tmp_path / "in").mkdir()
    seen_through = tmp_path / "in" / "a.png"
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(seen_through)
    ends = {
        "reconstruct": ["reconstruct", trained, seen_through, "--out", tmp_path / "out", "--force"],
        "evaluate": ["evaluate", trained, "--data", tmp_path / "in", "--metrics", "psnr", "--json"],
        "encode": ["encode", trained, "--data", tmp_path / "in", "--out", tmp_path / "a.npz", "--force"],
        "latent-stats": ["latent-stats", trained, "--data", tmp_path / "in", "--dry-run", "--json"],
    }
    large = smalti_cli(*ends[verb], "--max-pixels", 255)
    assert large.exit_code == 2
    assert "16 x 16 pixels: max_pixels allows 0.000255 megapixels" in large.output
    for option, value in (("--value-range", "half"), ("--background", "grey")):
        wrong = smalti_cli(*ends[verb], option, value)
        assert wrong.exit_code == 2
        assert f"{option}" in wrong.output
        assert "expected" in wrong.output
    assert smalti_cli(*ends[verb], "--background", "white").exit_code == 0


def test_a_background_and_a_range_are_what_is_reconstructed(smalti_cli: Verb, trained: Path, tmp_path: Path) -> None:
    Image.new("RGBA", (16, 16), (0, 0, 0, 0)).save(tmp_path / "a.png")
    Image.new("RGB", (16, 16), "white").save(tmp_path / "white.png")
    Image.fromarray(np.full((16, 16), 4095, dtype=np.uint16)).save(tmp_path / "deep.png")
    options = ["--out", tmp_path / "out", "--background", "white", "--value-range", 4095]
    names = ("a", "white", "deep")
    assert smalti_cli("reconstruct", trained, *(tmp_path / f"{n}.png" for n in names), *options).exit_code == 0
    made = [(tmp_path / "out" / f"{name}.png").read_bytes() for name in names]
    assert made[0] == made[1] == made[2]
    told = smalti_cli("reconstruct", trained, tmp_path / "deep.png", "--out", tmp_path / "dark")
    assert "value_range: 4095 would use all" in told.stderr


def test_tiles_are_asked_for_in_pixels(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    result = smalti_cli("reconstruct", trained, photos / "below" / "b.png", "--out", tmp_path / "a", "--tile", 16)
    assert result.exit_code == 0, result.output
    model = smalti.load(trained)
    model.enable_tiling(16)
    made = model.reconstruct(open_image(photos / "below" / "b.png", 3))
    assert torch.equal(to_uint8(open_image(tmp_path / "a" / "b.png", 3)), to_uint8(made))
    wrong = smalti_cli("reconstruct", trained, photos / "a.png", "--out", tmp_path / "b", "--tile", 6)
    assert wrong.exit_code == 2
    assert "tile_size=6: expected a multiple of the factor 4" in wrong.stderr
