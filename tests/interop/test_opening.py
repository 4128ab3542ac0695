"""Where models are looked for, and that a look-alike of ours is not taken for a foreign one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import smalti
from smalti.config import config_of
from smalti.interop import opening
from smalti.interop._recognise import format_named
from smalti.interop.conversion import export_state
from smalti.interop.diffusers import Diffusers
from smalti.registry import UserError
from tests.interop.checkpoints import tiny_kl


def test_a_repository_of_diffusers_on_the_hub_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_kl()
    Diffusers().write(tmp_path / "hub", export_state(model, format_named("diffusers")).state, config_of(model))
    asked = []

    def download(repository: str, name: str, options: dict[str, Any]) -> Path:
        asked.append((repository, name))
        return tmp_path / "hub" / name

    monkeypatch.setattr(opening, "fetch", download)
    found = smalti.load("stabilityai/sd-vae").state_dict()
    assert asked == [
        ("stabilityai/sd-vae", "config.json"),
        ("stabilityai/sd-vae", "diffusion_pytorch_model.safetensors"),
    ]
    assert all(torch.equal(value, found[key]) for key, value in model.state_dict().items())


def test_our_own_folders_stay_our_own(tmp_path: Path) -> None:
    tiny_kl().save_pretrained(tmp_path / "model")
    assert opening.foreign_source(tmp_path / "model") is None
    assert opening.foreign_source(tmp_path) is None, "a run folder"
    (tmp_path / "model" / "config.json").write_text("{")
    assert opening.foreign_source(tmp_path / "model") is None, "damaged, but ours"
    with pytest.raises(UserError, match="damaged"):
        smalti.load(tmp_path / "model")
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(UserError, match=r"config\.json"):
        smalti.load(tmp_path / "model")


def test_ours_is_not_asked_for_by_a_foreign_name(tmp_path: Path) -> None:
    tiny_kl().save_pretrained(tmp_path / "model")
    assert smalti.load(tmp_path / "model", format="smalti").factor == 2
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"_class_name": "AutoencoderKL"}))
    with pytest.raises(UserError, match="no weights here"):
        smalti.load(tmp_path / "vae")
