"""Metrics of features by name: under ``validation.metrics`` of a recipe, and for ``smalti evaluate``."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import smalti
from smalti.cli._app import app
from smalti.config import ConfigError
from smalti.extractors.inception_v3 import FILE
from tests.cli.conftest import TINY

DATA = "validation.data={source: {type: photos, include: [flower, china]}, transform: {size: 16, crop: center}}"
RANDOM = "{type: inception_v3, weights: random, layers: ['64']}"


@pytest.fixture(autouse=True)
def without_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SMALTI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SMALTI_OFFLINE", "1")


def test_a_recipe_measures_and_monitors_and_the_command_line_says_what_is_missing(tmp_path: Path) -> None:
    overrides = [
        DATA,
        f"validation.metrics={{fd: {{type: fd, extractor: {RANDOM}}}, bands: {{type: psnr_bands, bands: 2}}}}",
        "validation.monitor=fd_random_inception_64",
        "validation.every=2",
    ]
    smalti.train(TINY, overrides, out=tmp_path / "run", quiet=True)
    found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    assert {"fd_random_inception_64", "bands_0", "bands_1"} <= found.keys()
    assert found["fd_random_inception_64"] > 0

    (tmp_path / "photos").mkdir()
    Image.radial_gradient("L").resize((32, 32)).convert("RGB").save(tmp_path / "photos" / "a.png")
    command = ["evaluate", str(tmp_path / "run"), "--data", str(tmp_path / "photos"), "--metrics"]
    result = CliRunner().invoke(app, [*command, "psnr_bands", "--json"])
    assert result.exit_code == 0, result.stderr
    assert set(json.loads(result.stdout)["images"][0]) >= {f"psnr_bands_{band}" for band in range(4)}
    refused = CliRunner().invoke(app, [*command, "psnr,fid"])
    assert refused.exit_code == 2
    assert refused.stderr.count(FILE.url) == 1
    assert f"SHA-256 {FILE.sha256}" in refused.stderr


def test_missing_weights_and_names_of_random_ones_are_told_with_the_recipe(
    tmp_path: Path,
) -> None:
    with pytest.raises(ConfigError) as raised:
        smalti.train(TINY, [DATA, "validation.metrics=[fid]"], out=tmp_path / "run", quiet=True)
    assert "validation.metrics.fid" in str(raised.value)
    assert str(raised.value).count(FILE.url) == 1
    overrides = [DATA, "validation.metrics={fid: {type: fid, extractor: {type: lpips, weights: random}}}"]
    with pytest.raises(ConfigError, match="'fd_random_lpips' is not among the metrics; known: fid"):
        smalti.train(TINY, [*overrides, "validation.monitor=fd_random_lpips"], out=tmp_path / "run", quiet=True)
