"""``smalti sample``: images depend on their seeds alone; files are whole, and of the promised shape."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import smalti
from smalti.cli._app import app
from smalti.cli.sample import images_of
from smalti.models.resnet_generator import ResnetGenerator


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="smalti")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    ResnetGenerator(image_size=8, latent_size=6, channels=4, num_classes=3).save_pretrained(folder)
    return folder


def test_npz_is_what_fid_tools_read(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "images.npz"
    result = run("sample", saved, "--out", out, "--count", 70)
    assert result.exit_code == 0, result.output
    with np.load(out) as file:
        assert file.files == ["arr_0"]
        images = file["arr_0"]
    assert images.dtype == np.uint8
    assert images.shape == (70, 8, 8, 3)
    assert list(tmp_path.iterdir()) == [out]


def test_image_depends_on_its_seed_alone(saved: Path) -> None:
    generator = smalti.load(saved)
    many = torch.cat(list(images_of(generator, seed=0, count=70, label=1)))
    few = torch.cat(list(images_of(generator, seed=66, count=2, label=1)))
    torch.testing.assert_close(many[66:68], few)


def test_strip_begins_and_ends_at_its_images(saved: Path) -> None:
    generator = smalti.load(saved)
    strips = torch.cat(list(images_of(generator, seed=3, count=2, label=0, steps=5)))
    whole = torch.cat(list(images_of(generator, seed=3, count=3, label=0)))
    assert len(strips) == 10
    for strip, place in ((0, 0), (4, 1), (5, 1), (9, 2)):
        torch.testing.assert_close(strips[strip], whole[place], rtol=1e-4, atol=1e-5)


def test_classes_come_in_turn_or_as_asked(saved: Path) -> None:
    generator = smalti.load(saved)
    noise = torch.stack([torch.randn(6, generator=torch.Generator().manual_seed(i)) for i in range(4)])
    in_turn = torch.cat(list(images_of(generator, seed=0, count=4)))
    torch.testing.assert_close(in_turn, generator.sample(noise, torch.tensor([0, 1, 2, 0])))


def test_picture_is_a_square_and_strips_are_rows(saved: Path, tmp_path: Path) -> None:
    assert run("sample", saved, "--out", tmp_path / "a.png", "--count", 9).exit_code == 0
    assert run("sample", saved, "--out", tmp_path / "b.png", "--count", 2, "--interpolate", 6).exit_code == 0
    with Image.open(tmp_path / "a.png") as square, Image.open(tmp_path / "b.png") as strips:
        assert square.size == (3 * 34 - 2, 3 * 34 - 2)
        assert strips.size == (6 * 34 - 2, 2 * 34 - 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "x.jpg"], "ends in .png or .npz"),
        (["--out", "x.png", "--label", "3"], "0 to 2"),
    ],
)
def test_bad_requests_are_one_message(saved: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("sample", saved, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_nothing_is_overwritten_unasked_and_an_autoencoder_is_no_generator(saved: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.png"
    out.write_text("mine")
    assert run("sample", saved, "--out", out).exit_code == 2
    assert out.read_text() == "mine"
    assert run("sample", saved, "--out", out, "--count", 1, "--force").exit_code == 0
    assert "smalti sample" in run("reconstruct", saved, out, "--out", tmp_path / "pictures").output
    smalti.build("tiny-vqvae").save_pretrained(tmp_path / "tokenizer")
    assert "expected a generator" in run("sample", tmp_path / "tokenizer", "--out", tmp_path / "b.png").output
