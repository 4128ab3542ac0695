"""A tiny FQGAN trains with each discriminator."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

import smalti
from smalti.assembly.recipe import read_document
from smalti.discriminators import Discriminator
from smalti.registry import names

OPTIONS: dict[str, dict[str, Any]] = {
    "dcgan": {"image_size": 32, "channels": 4},
    "mlp": {"image_size": 32, "widths": [8]},
    "patch": {"channels": 4, "layers": 2},
    "residual": {"channels": 4},
    "stylegan": {"image_size": 32, "channels": 8},
    "stylegan2": {"image_size": 32, "channel_base": 64, "max_channels": 8},
}


def test_every_discriminator_has_options_here() -> None:
    assert set(names(Discriminator)) == set(OPTIONS)


@pytest.mark.parametrize("name", names(Discriminator))
def test_tiny_fqgan_trains_with_each_discriminator(name: str, tmp_path: Path) -> None:
    recipe = read_document("tiny-fqgan-dual-f8").data
    recipe["discriminator"] = {"type": name, **OPTIONS[name]}
    for player in ("generator", "discriminator"):
        recipe["objective"][player]["adversarial"]["start"] = 0
    recipe["data"] |= {"batch_size": 2, "workers": 0}
    recipe["data"]["transform"]["size"] = 32
    recipe.pop("validation", None)
    recipe["engine"] |= {"max_steps": 2, "log_every": 1, "sample_every": 0, "checkpoint_every": 0}
    path = tmp_path / "fqgan.yaml"
    path.write_text(yaml.safe_dump(recipe))
    smalti.train(path, out=tmp_path / "run", quiet=True)
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    for player in ("generator", "discriminator"):
        assert math.isfinite(last[f"train/{player}/total"])
        assert last[f"train/{player}/skipped_steps"] == 0
        assert last[f"train/{player}/adversarial/status"] == "active"
