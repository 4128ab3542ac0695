"""Held-out images of any size: the objective sees what the networks take, metrics see every image."""

import json
from pathlib import Path

import pytest
from PIL import Image

import smalti
from smalti.registry import UserError
from tests.cli.conftest import TINY

HELD_OUT = "validation={data: {source: {type: image_folder, path: held}}, metrics: [psnr]}"


@pytest.mark.parametrize("sizes", [[(1, 1), (17, 22)], [(1, 1)]])
def test_images_smaller_than_the_factor_are_measured_and_left_out_of_the_objective(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[tuple[int, int]]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("held").mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (90, 60, 30)).save(f"held/{number}.png")
    run = smalti.train(TINY, [HELD_OUT, "engine.max_steps=1", "engine.sample_every=1"], out="run", quiet=True)
    assert run.evaluation["psnr"] > 0
    assert ("generator/total" in run.evaluation["objective"]) == (len(sizes) > 1)
    assert len(json.loads(Path("run/evaluation.json").read_text())["images"]) == len(sizes)
    assert list(Path("run/samples").iterdir())


def test_what_cannot_be_measured_does_not_cost_the_steps_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("held").mkdir()
    Image.new("RGB", (1, 1)).save("held/one.png")
    ssim = "validation={data: {source: {type: image_folder, path: held}}, metrics: [ssim], monitor: ssim}"
    with pytest.raises(UserError, match="'ssim': not measured: 1 of 1 images are left out, it needs at least 6 x 6"):
        smalti.train(TINY, [ssim, "engine.max_steps=2"], out="run", quiet=True)
    assert [folder.name for folder in Path("run/checkpoints").iterdir()] == ["00000002"]
