"""A configuration that comes with weights is data: no way in runs or imports what it names, unless the user says so."""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

import smalti
from smalti.assembly.recipe import load_recipe
from smalti.discriminators.patch import Patch
from smalti.interop.converting import convert
from smalti.models import _pretrained
from smalti.models._pretrained import save_model
from smalti.models._saved import SavedModel
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError
from tests.assembly.test_fine_tuning import recipe
from tests.cli.conftest import Verb
from tests.interop.checkpoints import tiny_vq

EVIL = '''
from pathlib import Path

from torch import nn

from smalti.discriminators.patch import Patch
from smalti.models.conv import ConvEncoder

HERE = Path(__file__).parent
(HERE / "imported").touch()


class Evil(nn.Module):
    def __init__(self, **options):
        super().__init__()
        (HERE / "called").touch()


class Encoder(ConvEncoder):
    """Trustworthy: the encoder that it is derived from."""


class Judge(Patch):
    """Trustworthy, too."""
'''


@dataclass
class Trap:
    """A saved model whose configuration names code, and what would show that the code ran."""

    model: Path
    home: Path
    photos: Path

    def write(self, folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config["model"])
        (folder / "config.json").write_text(json.dumps(config))

    def ran(self) -> list[str]:
        return [name for name in ("imported", "called", "touched") if (self.home / name).exists()]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    home, photos, model = tmp_path / "home", tmp_path / "photos", tmp_path / "model"
    home.mkdir()
    photos.mkdir()
    (home / "evil_parts.py").write_text(EVIL)
    monkeypatch.syspath_prepend(str(home))
    monkeypatch.chdir(tmp_path)
    Image.radial_gradient("L").resize((16, 16)).convert("RGB").save(photos / "a.png")
    tiny_vq().save_pretrained(model)
    yield Trap(model, home, photos)
    sys.modules.pop("evil_parts", None)


def popen(trap: Trap) -> dict[str, Any]:
    return {"type": "subprocess.Popen", "args": ["touch", str(trap.home / "touched")]}


# Where the code stands in the configuration.
PLACES: dict[str, Callable[[dict[str, Any], Trap], None]] = {
    "the model itself": lambda model, trap: model.update(popen(trap)),
    "a class with a side effect": lambda model, trap: model.update(type="evil_parts.Evil"),
    "its encoder": lambda model, trap: model.update(encoder={"type": "evil_parts.Evil"}),
    "deep in an option that nothing knows": lambda model, trap: model.update(x=[{"y": {"type": "evil_parts.Evil"}}]),
    "an entry of a mapping": lambda model, trap: model["encoder"].update(norm={"type": "evil_parts.Evil"}),
}


def start(trap: Trap, **options: Any) -> Path:
    return recipe(trap.home, {"init": str(trap.model), **options})


def judged(trap: Trap) -> Path:
    model = json.loads((trap.model / "config.json").read_text())["model"]
    clean = trap.home / "clean"
    tiny_vq().save_pretrained(clean)
    (trap.model / "config.json").write_text(json.dumps({"format_version": 1, "weights_sha256": "", "model": model}))
    objective = {
        "generator": {"pixel": {"type": "mse"}, "adversarial": {"type": "hinge"}},
        "discriminator": {"adversarial": {"type": "hinge"}},
    }
    return recipe(trap.home, {"init": str(clean)}, objective, discriminator={"init": str(trap.model)})


def tiny(trap: Trap) -> Path:
    """A recipe whose tiny form alone starts from the folder."""
    clean = trap.home / "clean"
    tiny_vq().save_pretrained(clean)
    return recipe(trap.home, {"init": str(clean)}, tiny={"model": {"init": str(trap.model)}})


def beside(trap: Trap) -> Path:
    """A good model with the folder as the discriminator that is carried along."""
    clean = trap.home / "clean"
    tiny_vq().save_pretrained(clean)
    trap.model.rename(clean / "discriminator")
    return clean


VERBS: dict[str, Callable[[Trap], list[object]]] = {
    "train": lambda trap: ["train", start(trap), "--out", trap.home / "run"],
    "train --resume": lambda trap: ["train", start(trap), "--out", trap.home / "run", "--resume"],
    "train --dry-run": lambda trap: ["train", start(trap), "--dry-run"],
    "train with options beside": lambda trap: ["train", start(trap, freeze=["encoder"]), "--set", "model.heads={}"],
    "train, a user's own class beside": lambda trap: [
        "train",
        start(trap, bottleneck={"type": "smalti.bottlenecks.identity.Identity", "in_channels": 4}),
    ],
    "train, discriminator": lambda trap: ["train", judged(trap), "--out", trap.home / "run"],
    "train, init by --set": lambda trap: ["train", "tiny-vqvae", "--set", f"model={{init: {trap.model}}}"],
    "recipes check": lambda trap: ["recipes", "check", start(trap)],
    "recipes check, tiny form": lambda trap: ["recipes", "check", tiny(trap)],
    "recipes check, discriminator": lambda trap: ["recipes", "check", judged(trap)],
    "recipes show": lambda trap: ["recipes", "show", start(trap), "--resolved"],
    "convert": lambda trap: ["convert", trap.model, trap.home / "out"],
    "convert --to": lambda trap: ["convert", trap.model, trap.home / "out.pt", "--to", "latent-diffusion"],
    "convert, discriminator": lambda trap: ["convert", beside(trap), trap.home / "out", "--keep-discriminator"],
    "evaluate": lambda trap: ["evaluate", trap.model, "--data", trap.photos],
    "encode": lambda trap: ["encode", trap.model, "--data", trap.photos, "--out", trap.home / "x.npz"],
    "reconstruct": lambda trap: ["reconstruct", trap.model, trap.photos / "a.png", "--out", trap.home / "out"],
    "sample": lambda trap: ["sample", trap.model, "--out", trap.home / "x.png"],
    "latent-stats": lambda trap: ["latent-stats", trap.model, "--data", trap.photos],
    "latent-stats --dry-run": lambda trap: ["latent-stats", trap.model, "--data", trap.photos, "--dry-run"],
    "bench encode": lambda trap: ["bench", "encode", trap.model, "--size", "16"],
}

CALLS: dict[str, Callable[[Trap], object]] = {
    "load": lambda trap: smalti.load(trap.model),
    "Autoencoder.from_pretrained": lambda trap: Autoencoder.from_pretrained(trap.model),
    "SavedModel.from_pretrained": lambda trap: SavedModel.from_pretrained(trap.model),
    "build": lambda trap: smalti.build(start(trap)),
    "train": lambda trap: smalti.train(start(trap), out=trap.home / "run", quiet=True),
    "load_recipe": lambda trap: load_recipe(start(trap)),
    "convert": lambda trap: convert(trap.model, trap.home / "out"),
    "convert a discriminator": lambda trap: convert(beside(trap), trap.home / "out", keep_discriminator=True),
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_runs_code_of_a_saved_model(verb: str, trap: Trap, smalti_cli: Verb) -> None:
    trap.write(trap.model, lambda model: PLACES["its encoder"](model, trap))
    result = smalti_cli(*VERBS[verb](trap))
    assert result.exit_code == 2
    assert "--trust-code" in result.stderr
    assert "encoder.type" in result.stderr
    assert "Traceback" not in result.stderr
    assert trap.ran() == []


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("place", PLACES)
def test_no_call_runs_code_wherever_it_stands(place: str, call: str, trap: Trap) -> None:
    trap.write(trap.model, lambda model: PLACES[place](model, trap))
    with pytest.raises(UserError, match="trust_code=True"):
        CALLS[call](trap)
    assert trap.ran() == []
    assert "evil_parts" not in sys.modules


def test_a_repository_of_the_hub_is_no_more_trusted_than_a_folder(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    trap.write(trap.model, lambda model: PLACES["its encoder"](model, trap))
    monkeypatch.setattr(_pretrained, "hf_hub_download", lambda _, name, **options: str(trap.model / name))
    path = recipe(trap.home, {"init": "somebody/model"})
    for call in (lambda: smalti.load("somebody/model"), lambda: load_recipe(path), lambda: smalti.build(path)):
        with pytest.raises(UserError, match="--trust-code"):
            call()
    assert trap.ran() == []


def test_a_report_builds_no_model(trap: Trap, smalti_cli: Verb) -> None:
    """The page of a run from elsewhere is made from its numbers and pictures alone."""
    trap.write(trap.model, lambda model: PLACES["its encoder"](model, trap))
    (trap.home / "run").mkdir()
    trap.model.rename(trap.home / "run" / "model")
    (trap.home / "run" / "metrics.jsonl").write_text(
        "".join(f'{{"step": {step}, "images": 2, "train/generator/total": 1.0, "val/psnr": 9.0}}\n' for step in (1, 2))
    )
    (trap.home / "run" / "recipe.yaml").write_text(yaml.safe_dump({"model": {"type": "evil_parts.Evil"}}))
    result = smalti_cli("report", trap.home / "run")
    assert result.exit_code == 0, result.stderr
    assert trap.ran() == []


def test_who_trusts_a_model_gets_it(trap: Trap, smalti_cli: Verb) -> None:
    """The option opens the way, for each verb and for the calls of Python."""
    trap.write(trap.model, lambda model: model["encoder"].update(type="evil_parts.Encoder"))
    out = trap.home / "out"
    path = start(trap)
    for verb in (
        ["evaluate", trap.model, "--data", trap.photos, "--metrics", "psnr"],
        ["encode", trap.model, "--data", trap.photos, "--out", out / "x.npz"],
        ["reconstruct", trap.model, trap.photos / "a.png", "--out", out],
        ["latent-stats", trap.model, "--data", trap.photos],
        ["convert", trap.model, out / "again"],
        ["recipes", "check", path],
        ["recipes", "show", path, "--resolved"],
        ["train", path, "--out", out / "run", "--set", "engine.max_steps=1"],
        ["bench", "encode", trap.model, "--size", "16", "--batch", "1", "--repeats", "1"],
    ):
        result = smalti_cli(*verb, "--trust-code")
        assert result.exit_code == 0, (verb, result.stderr)
    assert trap.ran() == ["imported"]
    assert type(smalti.load(trap.model, trust_code=True).encoder).__module__ == "evil_parts"
    assert type(smalti.build(path, trust_code=True).encoder).__module__ == "evil_parts"


def test_a_discriminator_is_trusted_as_a_model_is(trap: Trap) -> None:
    clean = trap.home / "clean"
    tiny_vq().save_pretrained(clean)
    (clean / "discriminator").mkdir()
    save_model(Patch(in_channels=3, channels=8, layers=1, norm="none"), clean / "discriminator")
    trap.write(clean / "discriminator", lambda model: model.update(type="evil_parts.Judge"))
    with pytest.raises(UserError, match="--trust-code"):
        convert(clean, trap.home / "kept", keep_discriminator=True)
    assert trap.ran() == []
    assert convert(clean, trap.home / "kept", keep_discriminator=True, trust_code=True).discriminator


def test_a_user_names_own_classes_over_what_came_with_weights(trap: Trap) -> None:
    """The recipe is the user's: only what ``init`` brings in is data."""
    options = json.loads((trap.model / "config.json").read_text())["model"]["encoder"]
    made = smalti.build(start(trap, encoder={**options, "type": "evil_parts.Encoder"}))
    assert type(made.encoder).__module__ == "evil_parts"
