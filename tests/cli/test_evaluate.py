"""``smalti evaluate``: the numbers of the metrics, as a table and as JSON."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import smalti
from smalti.cli.reconstruct import open_image
from smalti.losses.psnr import psnr
from tests.cli.conftest import TINY, Verb


def test_numbers_are_means_over_the_images(smalti_cli: Verb, trained: Path, photos: Path) -> None:
    result = smalti_cli("evaluate", trained, "--data", photos, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    model = smalti.load(trained)
    with torch.inference_mode():
        images = {name: open_image(photos / name, 3) for name in ("a.png", "below/b.png")}
        expected = {name: float(psnr(model.reconstruct(image), image)) for name, image in images.items()}
    assert {row["name"]: row["psnr"] for row in found["images"]} == pytest.approx(expected, abs=1e-4)
    numbers = found["numbers"]
    assert numbers["psnr"] == pytest.approx(sum(expected.values()) / 2, abs=1e-4)
    assert numbers["bits_per_image"] == pytest.approx(4 * (24 * 16 + 32 * 32) / 16 / 2)
    assert numbers["bits_per_pixel"] == pytest.approx(4 / 16)
    assert 0 < numbers["codebook_usage"] <= 1
    assert found["protocol"]["name"] == "whole"


def test_table_names_units(smalti_cli: Verb, trained: Path, photos: Path) -> None:
    result = smalti_cli("evaluate", trained, "--data", photos, "--metrics", "psnr, codebook_usage")
    assert result.stdout.startswith("2 images in ")
    rows = [line.split("  ")[0] for line in result.stdout.splitlines()[1:]]
    assert rows == ["PSNR", "codebook usage"]
    assert " dB" in result.stdout
    assert " %" in result.stdout


def test_size_measures_the_middle(smalti_cli: Verb, trained: Path, photos: Path) -> None:
    result = smalti_cli("evaluate", trained, "--data", photos, "--size", 8, "--metrics", "bits_per_image", "--json")
    found = json.loads(result.stdout)
    assert found["numbers"]["bits_per_image"] == pytest.approx(4 * 4)
    assert found["protocol"]["fields"]["crop"] == "adm_center"


def test_unknown_metrics_are_named_with_the_nearest(smalti_cli: Verb, trained: Path, photos: Path) -> None:
    result = smalti_cli("evaluate", trained, "--data", photos, "--metrics", "psrn")
    assert result.exit_code == 2
    assert "did you mean 'psnr'" in result.stderr


@pytest.mark.parametrize("channels", [1, 4])
def test_images_are_read_with_the_channels_of_the_model(
    smalti_cli: Verb, photos: Path, tmp_path: Path, channels: int
) -> None:
    options = [f"model.{part}.image_channels={channels}" for part in ("encoder", "decoder")]
    options.append(f"data.source={{type: image_folder, path: photos, image_channels: {channels}}}")
    smalti.build(TINY, options).save_pretrained(tmp_path / "model")
    result = smalti_cli("evaluate", tmp_path / "model", "--data", photos, "--metrics", "psnr")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("2 images in ")
    result = smalti_cli("encode", tmp_path / "model", "--data", photos, "--out", tmp_path / "tokens.npz")
    assert result.exit_code == 0, result.output


def test_images_that_a_metric_cannot_take_are_counted(smalti_cli: Verb, trained: Path, photos: Path) -> None:
    Image.new("RGB", (5, 5)).save(photos / "thumbnail.png")
    found = smalti_cli("evaluate", trained, "--data", photos, "--metrics", "psnr,ssim", "--json")
    assert "ssim: 1 of 3 images are left out, it needs at least 6 x 6 pixels" in found.stderr
    rows = json.loads(found.stdout)["images"]
    assert ["ssim" in row for row in rows] == [True, True, False]
    (photos / "a.png").unlink()
    (photos / "below" / "b.png").unlink()
    nothing = smalti_cli("evaluate", trained, "--data", photos, "--metrics", "ssim")
    assert nothing.exit_code == 2
    assert "nothing could be measured" in nothing.output
