"""Actors of a local Ray write the bytes that one process writes. Ray is no part of the development set."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smalti.registry import UserError
from smalti.tokenizing.cluster import tokenize_on_ray
from smalti.tokenizing.passing import tokenize
from smalti.tokens.store import shard_path
from tests.evaluation.tokenizers import photos
from tests.tokenizing.jobs import contents, job

HAS_RAY = importlib.util.find_spec("ray") is not None
ROOT = Path(__file__).parent.parent.parent


def in_a_process(model: Path, data: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """The verb with two actors; Ray and all it started end with the process."""
    command = [sys.executable, "-m", "smalti", "tokenize", str(model), "--data", str(data), "--out", str(out)]
    command += ["--engine", "ray", "--actors", "2", "--shard-images", "3", "--batch-size", "4", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


@pytest.mark.skipif(not HAS_RAY, reason="pip install 'smalti[ray]'")
def test_two_actors_write_what_one_process_writes(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 11, ((16, 24), (8, 12), (16, 24)))
    asked = job(folder, views="flip")
    asked.model.save_pretrained(tmp_path / "model")
    first = in_a_process(tmp_path / "model", folder, tmp_path / "ray", "--views", "flip")
    assert first.returncode == 0, first.stderr
    one = job(folder, views="flip", path=str(tmp_path / "model"), data=str(folder))
    tokenize(one, tmp_path / "one")
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")
    for number in (0, 2):
        shard_path(tmp_path / "ray", number).unlink()
    again = in_a_process(tmp_path / "model", folder, tmp_path / "ray", "--views", "flip", "--resume")
    assert again.returncode == 0, again.stderr
    assert contents(tmp_path / "ray") == contents(tmp_path / "one")


@pytest.mark.skipif(not HAS_RAY, reason="pip install 'smalti[ray]'")
def test_what_an_actor_finds_wrong_is_one_message(tmp_path: Path) -> None:
    asked = job(photos(tmp_path / "in", 2, ((16, 24),)))
    next(asked.model.encoder.parameters()).data.fill_(float("nan"))
    asked.model.save_pretrained(tmp_path / "model")
    found = in_a_process(tmp_path / "model", tmp_path / "in", tmp_path / "out")
    assert found.returncode == 2
    assert "error: 0.png or one after it: its latent is not finite" in found.stderr
    assert "Traceback" not in found.stderr


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    with pytest.raises(UserError, match=r"pip install 'smalti\[ray\]'"):
        tokenize_on_ray(job(photos(tmp_path / "in", 2, ((16, 24),))), tmp_path / "out", 1)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
