"""A checkpoint of a run is a model for every verb: RUN@best, RUN@last, RUN@2, its folder; what is none says so."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import smalti
from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.config import config_of
from smalti.engine.checkpoint import Checkpoint, CheckpointFolder
from smalti.models._checkpoint import find_checkpoint
from smalti.models.resnet_generator import ResnetGenerator
from smalti.registry import UserError
from tests.assembly.test_fine_tuning import recipe
from tests.cli.conftest import TINY, Verb
from tests.cli.test_bad_input import flip_a_byte, refused

JUDGED = {
    "discriminator": {"type": "patch", "channels": 8, "layers": 1, "norm": "none"},
    "objective": {
        "generator": {"pixel": {"type": "mse"}, "adversarial": {"type": "hinge", "weight": 0.1}},
        "discriminator": {"adversarial": {"type": "hinge"}},
    },
    "optim": {"generator": {"lr": 1e-2}, "discriminator": {"lr": 1e-2}},
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with averaged weights and a discriminator, checkpoints of steps 2 and 4; step 2 was the best."""
    home = tmp_path_factory.mktemp("kept")
    written = {**yaml.safe_load(TINY.read_text()), **JUDGED}
    written["objective"]["generator"] |= {"codebook": {"type": "codebook"}, "commitment": {"type": "commitment"}}
    written["engine"] |= {"ema": {"decay": 0.5}, "log_every": 4, "sample_every": 0}
    (home / "recipe.yaml").write_text(yaml.safe_dump(written))
    smalti.train(home / "recipe.yaml", out=home / "run", quiet=True)
    for manifest in (home / "run" / "checkpoints").glob("*/manifest.json"):
        change(manifest, best_step=2)
    return home / "run"


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(kept, tmp_path / "run"))


@pytest.fixture
def stopped(run: Path) -> Path:
    """The same run as a signal would have left it."""
    shutil.rmtree(run / "model")
    (run / "evaluation.json").unlink()
    return run


def change(manifest: Path, **values: Any) -> None:
    found = json.loads(manifest.read_text()) | values
    manifest.write_text(json.dumps({name: value for name, value in found.items() if value != "absent"}))


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[key]) for key, value in ours.items())


@pytest.mark.parametrize("form", ["{}@last", "{}@4", "{}@0000004", "{}/@4", "{}/checkpoints/00000004"])
def test_the_last_checkpoint_is_the_model_that_the_run_saved(kept: Path, form: str) -> None:
    found, model = smalti.load(form.format(kept)), smalti.load(kept)
    assert same(found, model)
    assert not found.training
    assert config_of(found) == config_of(model)


def test_weights_are_those_of_the_step_and_averaged_unless_asked_otherwise(kept: Path, tmp_path: Path) -> None:
    best, second = smalti.load(f"{kept}@best"), smalti.load(f"{kept}@2")
    assert same(best, second)
    assert not same(best, smalti.load(kept))
    checkpoint = find_checkpoint(f"{kept}@2")
    assert checkpoint is not None
    assert checkpoint.step == 2
    raw, averaged = checkpoint.state(weights="raw"), checkpoint.state()
    trainable = {name for name, _ in best.named_parameters()}
    assert {key for key in raw if not torch.equal(raw[key], averaged[key])} <= trainable
    assert not torch.equal(raw["decoder.head.conv.weight"], averaged["decoder.head.conv.weight"])


def test_no_state_of_the_training_is_needed(run: Path) -> None:
    (run / "checkpoints" / "00000002" / "state.pt").unlink()
    (run / "checkpoints" / "00000002" / "discriminator.safetensors").unlink()
    assert smalti.load(f"{run}@2").factor == 4


def test_a_checkpoint_is_found_from_inside_its_folder(stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(stopped / "checkpoints" / "00000002")
    assert same(smalti.load("."), smalti.load(f"{stopped}@2"))
    monkeypatch.chdir(stopped)
    assert same(smalti.load("checkpoints/00000002"), smalti.load(".@2"))


VERBS: dict[str, Callable[[str, Path, Path], list[object]]] = {
    "evaluate": lambda model, photos, out: ["evaluate", model, "--data", photos],
    "encode": lambda model, photos, out: ["encode", model, "--data", photos, "--out", out / "x.npz"],
    "reconstruct": lambda model, photos, out: ["reconstruct", model, photos / "a.png", "--out", out],
    "latent-stats": lambda model, photos, out: ["latent-stats", model, "--data", photos, "--dry-run"],
    "bench encode": lambda model, photos, out: [
        *("bench", "encode", model, "--size", "16", "--batch", "1", "--repeats", "1")
    ],
    "convert": lambda model, photos, out: ["convert", model, out / "ours", "--keep-discriminator"],
    "model.init": lambda model, photos, out: [
        *("train", recipe(out, {"init": model}), "--out", out / "run", "--set", "engine.max_steps=1")
    ],
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_every_form_of_a_stopped_run(
    verb: str, stopped: Path, photos: Path, tmp_path: Path, smalti_cli: Verb
) -> None:
    forms = (f"{stopped}@best", f"{stopped}@2", str(stopped / "checkpoints" / "00000002"))
    for number, form in enumerate(forms if verb in {"encode", "convert"} else forms[:1]):
        out = tmp_path / str(number)
        out.mkdir()
        result = smalti_cli(*VERBS[verb](form, photos, out))
        assert result.exit_code == 0, result.output
        if verb == "convert":
            assert same(smalti.load(out / "ours"), smalti.load(f"{stopped}@2"))
            assert "ema weights" in result.stdout
            assert (out / "ours" / "discriminator" / "model.safetensors").is_file()


def test_tokens_are_those_of_the_step(kept: Path, photos: Path, tmp_path: Path, smalti_cli: Verb) -> None:
    for name, model in (("two", f"{kept}@best"), ("four", str(kept))):
        assert smalti_cli("encode", model, "--data", photos, "--out", tmp_path / name, "--latents").exit_code == 0
    with np.load(tmp_path / "two") as two, np.load(tmp_path / "four") as four:
        assert not np.array_equal(two["a.png"], four["a.png"])


def test_raw_weights_of_a_checkpoint_are_converted_on_demand(kept: Path, tmp_path: Path, smalti_cli: Verb) -> None:
    result = smalti_cli("convert", f"{kept}@4", tmp_path / "raw", "--weights", "raw")
    assert "raw weights" in result.stdout
    assert not same(smalti.load(tmp_path / "raw"), smalti.load(kept))


def generator_run(folder: Path) -> ResnetGenerator:
    """A run of a generator, without averaged weights."""
    model = ResnetGenerator(image_size=8, latent_size=6, channels=4)
    networks = {"generator": {f"network.{key}": value for key, value in model.state_dict().items()}}
    CheckpointFolder(folder / "checkpoints").save(Checkpoint(step=7, networks=networks, state={}))
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"model": config_of(model)}))
    return model


def test_images_are_sampled_from_a_checkpoint(tmp_path: Path, smalti_cli: Verb) -> None:
    run, model = tmp_path / "run", tmp_path / "model"
    generator_run(run).save_pretrained(model)
    for source, out in ((f"{run}@last", "a.npz"), (model, "b.npz")):
        assert smalti_cli("sample", source, "--out", tmp_path / out, "--count", 3).exit_code == 0
    with np.load(tmp_path / "a.npz") as sampled, np.load(tmp_path / "b.npz") as expected:
        assert np.array_equal(sampled["arr_0"], expected["arr_0"])
    for source in (f"{run}@7", model):
        refused(smalti_cli("convert", source, tmp_path / "out"), "ResnetGenerator", "smalti sample")
    refused(smalti_cli("convert", f"{run}@7", tmp_path / "out", "--weights", "ema"), "averages no weights")
    refused(smalti_cli("encode", f"{run}@7", "--data", tmp_path, "--out", tmp_path / "x.npz"), "smalti sample")


def test_training_goes_on_with_both_networks_of_a_checkpoint(kept: Path, tmp_path: Path) -> None:
    init = {"init": f"{kept}@2"}
    path = recipe(tmp_path, init, **{**JUDGED, "discriminator": init})
    trainer = assemble(load_recipe(path), tmp_path / "run", quiet=True)
    checkpoint = find_checkpoint(f"{kept}@2")
    assert checkpoint is not None
    for phase, network in (("generator", "model"), ("discriminator", "discriminator")):
        found = trainer.phases[phase].network.state_dict()
        assert all(torch.equal(found[key], value) for key, value in checkpoint.state(network).items())


# What is no model.


def test_a_stopped_run_names_what_goes_on_and_what_can_be_taken(stopped: Path, photos: Path, smalti_cli: Verb) -> None:
    for verb in ("evaluate", "encode", "reconstruct", "latent-stats", "convert", "bench encode"):
        arguments = VERBS[verb](str(stopped), photos, stopped.parent)
        refused(smalti_cli(*arguments), "--resume", f"{stopped}@last", "steps there: 2, 4")
    refused(smalti_cli("sample", stopped, "--out", stopped.parent / "x.png"), "--resume", f"{stopped}@4")
    with pytest.raises(UserError, match="steps there: 2, 4"):
        smalti.load(stopped / "checkpoints")
    shutil.rmtree(stopped / "checkpoints")
    refused(smalti_cli("evaluate", stopped, "--data", photos), "--resume", "no checkpoint")
    refused(smalti_cli("evaluate", f"{stopped}@last", "--data", photos), "--resume", "no checkpoint")


@pytest.mark.parametrize(
    ("which", "parts"),
    [
        ("3", ["no checkpoint of this step", "2, 4"]),
        ("99999999999999999999", ["expected best, last or a step"]),
        ("bset", ["expected best, last or a step", "did you mean 'best'"]),
        ("", ["expected best, last or a step", "known: 2, 4, best, last"]),
        ("-1", ["expected best, last or a step"]),
        ("4.0", ["expected best, last or a step"]),
        ("²", ["expected best, last or a step"]),
        ("a\nb", ["expected best, last or a step", "a\\x0ab"]),
    ],
)
def test_a_step_that_is_not_there_lists_those_that_are(
    which: str, parts: list[str], kept: Path, photos: Path, smalti_cli: Verb
) -> None:
    refused(smalti_cli("evaluate", f"{kept}@{which}", "--data", photos), *parts)


@pytest.mark.parametrize("best", ["absent", None])
def test_a_run_without_a_best_step_says_so(best: object, run: Path) -> None:
    for manifest in run.glob("checkpoints/*/manifest.json"):
        change(manifest, best_step=best)
    with pytest.raises(UserError, match=r"no best step \(validation\.monitor"):
        smalti.load(f"{run}@best")


def test_a_run_that_is_not_there_is_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smalti.models._pretrained.hf_hub_download", lambda *_, **__: pytest.fail("asked"))
    for which in ("best", "last", "40"):
        with pytest.raises(UserError, match="nowhere: no such run folder"):
            smalti.load(f"runs/nowhere@{which}")


def test_a_folder_of_such_a_name_means_itself(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept / "model", tmp_path / "run@best")
    shutil.copytree(kept, tmp_path / "a@b")
    assert same(smalti.load(tmp_path / "run@best"), smalti.load(kept))
    assert same(smalti.load(f"{tmp_path}/a@b@2"), smalti.load(f"{kept}@2"))


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a flipped byte": (lambda place: flip_a_byte(place / "generator.safetensors"), "not as it was written"),
    "averages flipped": (lambda place: flip_a_byte(place / "ema.safetensors"), "not as it was written"),
    "cut short": (lambda place: os.truncate(place / "generator.safetensors", 100), "not as it was written"),
    "a file is gone": (lambda place: (place / "generator.safetensors").unlink(), "generator.safetensors: missing"),
    "no manifest": (lambda place: (place / "manifest.json").unlink(), "manifest.json cannot be read"),
    "manifest of bytes": (lambda place: (place / "manifest.json").write_bytes(b"\xff\xfe{"), "it is no text"),
    "manifest cut": (lambda place: os.truncate(place / "manifest.json", 20), "it is no JSON"),
    "manifest of a list": (lambda place: (place / "manifest.json").write_text("[1]"), "expected a mapping"),
    "another format": (lambda place: change(place / "manifest.json", format=2), "format=2"),
    "no step": (lambda place: change(place / "manifest.json", step="absent"), "step=None"),
    "a step of words": (lambda place: change(place / "manifest.json", step="4"), "step='4'"),
    "another step": (lambda place: change(place / "manifest.json", step=9), "step=9"),
    "no hashes": (lambda place: change(place / "manifest.json", sha256={}), "sha256={}"),
    "hashes of numbers": (lambda place: change(place / "manifest.json", sha256={"a": 1}), "'a'"),
    "hashes outside": (lambda place: change(place / "manifest.json", sha256={"../a": "0"}), "'../a'"),
    "no generator": (lambda place: change(place / "manifest.json", sha256={"x.safetensors": "0"}), "holds none"),
    "a best of words": (lambda place: change(place / "manifest.json", best_step="x"), "best_step='x'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named(damage: str, run: Path) -> None:
    spoil, message = DAMAGES[damage]
    spoil(run / "checkpoints" / "00000004")
    for form in (f"{run}@4", run / "checkpoints" / "00000004"):
        with pytest.raises(UserError) as caught:
            smalti.load(form)
        assert message in str(caught.value)
        assert "00000004" in str(caught.value)
    assert smalti.load(f"{run}@2").factor == 4


def test_the_last_readable_one_is_the_last(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    (run / "checkpoints" / "00000004" / "manifest.json").write_text("{")
    assert same(smalti.load(f"{run}@last"), smalti.load(f"{run}@2"))
    assert "00000004" in caplog.text


def test_a_checkpoint_of_a_run_that_was_not_well_says_so(run: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert smalti.load(f"{run}@last").factor == 4
    assert caplog.text == ""
    change(run / "checkpoints" / "00000004" / "manifest.json", good=False)
    assert smalti.load(f"{run}@last").factor == 4
    assert "a run that was not well" in caplog.text


@pytest.mark.parametrize("name", ["generator.safetensors", "ema.safetensors", "state.pt"])
def test_a_file_of_a_checkpoint_says_what_to_write(name: str, kept: Path, tmp_path: Path, smalti_cli: Verb) -> None:
    path = kept / "checkpoints" / "00000004" / name
    refused(smalti_cli("convert", path, tmp_path / "out"), f"write {kept}@4")


def test_the_weights_file_of_a_saved_model_means_its_folder(kept: Path) -> None:
    assert same(smalti.load(kept / "model" / "model.safetensors"), smalti.load(kept))


def test_a_checkpoint_without_its_run_says_what_is_missing(kept: Path, tmp_path: Path) -> None:
    shutil.copytree(kept / "checkpoints" / "00000004", tmp_path / "alone" / "00000004")
    with pytest.raises(UserError, match=r"a checkpoint without its run: .*recipe\.yaml"):
        smalti.load(tmp_path / "alone" / "00000004")


RECIPES: dict[str, tuple[str | bytes, str]] = {
    "no text": (b"\xff\xfe\x00", "recipe.yaml"),
    "no YAML": ("model: [", "not YAML"),
    "a list": ("- a", "expected a mapping"),
    "no model": ("data: {}", "the run has no model"),
    "a model of words": ("model: autoencoder", "the run has no model"),
    "another model": ("model: {type: resnet_generator, image_size: 8, channels: 4}", "does not fit its configuration"),
    "an unknown model": ("model: {type: nothing}", "unknown model 'nothing'"),
    "code": ("model: {type: subprocess.Popen, args: [touch, x]}", "--trust-code"),
    "code inside": ("model: {type: autoencoder, encoder: {type: os.abort}}", "--trust-code"),
}


@pytest.mark.parametrize("case", RECIPES)
def test_the_recipe_of_a_checkpoint_is_data(case: str, run: Path) -> None:
    text, message = RECIPES[case]
    (run / "recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        smalti.load(f"{run}@4")


def test_a_format_of_others_is_refused_for_a_run(kept: Path, tmp_path: Path, smalti_cli: Verb) -> None:
    for source in (kept, f"{kept}@4"):
        refused(smalti_cli("convert", source, tmp_path / "out", "--from", "taming"), "a model of smalti, and not")
        with pytest.raises(UserError, match="a model of smalti, and not"):
            smalti.load(source, format="llamagen")


def test_scales_are_not_written_into_a_checkpoint(kept: Path, photos: Path, smalti_cli: Verb) -> None:
    refused(smalti_cli("latent-stats", f"{kept}@4", "--data", photos), f"smalti convert {kept}@4", "--dry-run")


def test_a_report_is_of_a_whole_run(kept: Path, smalti_cli: Verb) -> None:
    for form in (f"{kept}@best", kept / "checkpoints" / "00000004"):
        refused(smalti_cli("report", form), f"smalti report {kept}")
