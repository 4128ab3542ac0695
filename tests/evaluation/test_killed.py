"""Evaluations that are killed with -9 and resumed end with the numbers, rows and pictures of those that were not."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Verb, smalti_cli  # noqa: F401
from tests.evaluation.tokenizers import photos

METRICS = "psnr,ssim,bits_per_pixel,latent_statistics,codebook_report,psnr_bands"
IMAGES = 9
POINTS = {"see": IMAGES, "write": IMAGES, "moved": IMAGES, "picture": 4}


def words(folder: Path, out: Path) -> list[str]:
    common = ["--metrics", METRICS, "--batch-size", "1", "--pictures", "2", "--device", "cpu", "--no-cache"]
    model = "tests.evaluation.tokenizers:Halver"
    return ["evaluate", model, "--data", str(folder), "--out", str(out), "--resume", *common]


def killed_at(what: str, count: int, folder: Path, out: Path) -> None:
    command = [sys.executable, "-m", "tests.evaluation.killed", what, str(count), *words(folder, out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert not (out / "evaluation.json").exists()


def told(out: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The result without its seconds, and the pictures."""
    found = json.loads((out / "evaluation.json").read_text())
    del found["seconds"]
    return found, {path.name: path.read_bytes() for path in (out / "pictures").iterdir()}


def test_a_killed_evaluation_goes_on_and_ends_bit_equal(smalti_cli: Verb, tmp_path: Path) -> None:  # noqa: F811
    folder, out = photos(tmp_path / "in", IMAGES, sizes=((20, 24), (22, 18))), tmp_path / "out"
    assert smalti_cli(*words(folder, tmp_path / "straight")).exit_code == 0
    killed_at("write", 5, folder, out)
    assert len(list(out.glob(".evaluation-*"))) == 2  # what was measured, and what was being written
    assert smalti_cli(*words(folder, out)).exit_code == 0
    assert told(out) == told(tmp_path / "straight")
    assert not list(out.glob(".evaluation-*"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kills_at_random_points_and_again(smalti_cli: Verb, tmp_path: Path, seed: int) -> None:  # noqa: F811
    folder, out = photos(tmp_path / "in", IMAGES, sizes=((20, 24), (22, 18))), tmp_path / "out"
    assert smalti_cli(*words(folder, tmp_path / "straight")).exit_code == 0
    choice = random.Random(seed)
    what = choice.choice(sorted(POINTS))
    killed_at(what, choice.randint(1, POINTS[what]), folder, out)
    if seed % 3 == 0:  # and while it goes on
        killed_at("picture", choice.randint(1, 4), folder, out)
    assert smalti_cli(*words(folder, out)).exit_code == 0
    assert told(out) == told(tmp_path / "straight")
    assert not list(out.glob(".evaluation-*"))
