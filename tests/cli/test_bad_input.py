"""Bad input: a clear message or a stated rule, exit code 2, no traceback, and nothing that was saved is lost."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import Result

import smalti
from smalti.cli._files import write_npz
from tests.cli.conftest import TINY, Verb


def refused(result: Result, *parts: str) -> None:
    """The verb ended with exit code 2 and one message on stderr that has all ``parts``."""
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output
    for part in parts:
        assert part in result.stderr


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may damage."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def flip_a_byte(path: Path, where: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(where * (len(data) - 1))] ^= 0x10
    path.write_bytes(data)


# Recipes.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("model: [unclosed\n", ["recipe.yaml:2:1: not YAML"]),
        ("a:\n\t- tab\n", ["recipe.yaml:2:1: not YAML"]),
        ("just words\n", ["expected a mapping of sections"]),
        ("", ["expected a mapping of sections, got nothing"]),
        ("- a\n- b\n", ["expected a mapping of sections, got a seq"]),
        ("model: {type: autoencoder}\nmodel: {type: autoencoder}\n", ["stands twice"]),
    ],
)
@pytest.mark.parametrize("verb", [["train"], ["recipes", "show"]], ids=" ".join)
def test_a_recipe_that_is_no_recipe(
    text: str, parts: list[str], verb: list[str], smalti_cli: Verb, tmp_path: Path
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    arguments = ["--out", tmp_path / "run"] if verb == ["train"] else ["--resolved"]
    refused(smalti_cli(*verb, path, *arguments), *parts)
    assert not (tmp_path / "run").exists()


def test_a_binary_file_is_no_recipe(smalti_cli: Verb, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(b"\xff\xfe\x00\x01")
    refused(smalti_cli("train", path, "--out", tmp_path / "run"), str(path))


def test_a_recipe_that_does_not_exist_is_answered_with_the_nearest_name(smalti_cli: Verb) -> None:
    refused(smalti_cli("train", "quickstrat"), "no recipe 'quickstrat'", "did you mean 'quickstart'")
    refused(smalti_cli("train", "tiny-quickstar"), "did you mean 'tiny-quickstart'")
    refused(smalti_cli("train", "nowhere.yaml"), "no such file: nowhere.yaml")


@pytest.mark.parametrize("override", ["engine.max_steps", "=1", "engine..x=1", "engine.max_steps=[1"])
def test_an_override_that_is_none(override: str, smalti_cli: Verb, tmp_path: Path) -> None:
    refused(smalti_cli("train", TINY, "--set", override, "--out", tmp_path / "run"))


def test_all_mistakes_of_a_recipe_are_told_before_anything_is_made(smalti_cli: Verb, tmp_path: Path) -> None:
    wrong = ["--set", "engine.max_steps=many", "--set", "objective.generator.pixel.type=mes"]
    result = smalti_cli("train", TINY, *wrong, "--out", tmp_path / "run")
    refused(result, "2 problems", "engine.max_steps (--set)", "did you mean 'mse'")
    assert not (tmp_path / "run").exists()


# Models and checkpoints.


@pytest.mark.parametrize("verb", ["evaluate", "encode", "reconstruct"])
def test_a_model_that_is_not_there(verb: str, smalti_cli: Verb, photos: Path, tmp_path: Path) -> None:
    options: dict[str, list[object]] = {
        "evaluate": ["--data", photos],
        "encode": ["--data", photos, "--out", tmp_path / "x.npz"],
        "reconstruct": [photos / "a.png", "--out", tmp_path / "out"],
    }
    refused(smalti_cli(verb, tmp_path / "nowhere", *options[verb]), "nowhere: no such folder")
    refused(smalti_cli(verb, photos, *options[verb]), "config.json: no such file")
    assert not (tmp_path / "x.npz").exists()


def test_a_run_that_is_not_there_is_not_asked_of_the_hub(
    smalti_cli: Verb, trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smalti.models._pretrained.hf_hub_download", lambda *_, **__: pytest.fail("asked"))
    monkeypatch.chdir(trained.parent.parent)
    typo = f"{trained.parent.name}/tyni"
    refused(smalti_cli("evaluate", typo, "--data", photos), f"{typo}: no such folder")


@pytest.mark.parametrize("where", [0.0, 0.1, 0.9])
def test_a_model_with_a_flipped_byte(where: float, smalti_cli: Verb, copy: Path, photos: Path, tmp_path: Path) -> None:
    flip_a_byte(copy / "model" / "model.safetensors", where)
    result = smalti_cli("encode", copy, "--data", photos, "--out", tmp_path / "x.npz")
    refused(result, "model.safetensors: damaged", "sha256")
    assert not (tmp_path / "x.npz").exists()


def test_a_model_whose_configuration_is_damaged(smalti_cli: Verb, copy: Path, photos: Path) -> None:
    (copy / "model" / "config.json").write_text("{")
    refused(smalti_cli("evaluate", copy, "--data", photos), "config.json: damaged")


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(smalti_cli: Verb, copy: Path) -> None:
    newest = max((copy / "checkpoints").iterdir())
    flip_a_byte(newest / "generator.safetensors")
    result = smalti_cli("train", TINY, "--out", copy, "--resume", "--set", "engine.max_steps=6", "--json")
    assert result.exit_code == 0, result.output
    assert "damaged" in result.stderr
    assert newest.name in result.stderr


def test_when_every_checkpoint_is_damaged_nothing_is_overwritten(smalti_cli: Verb, copy: Path) -> None:
    for state in (copy / "checkpoints").glob("*/state.pt"):
        flip_a_byte(state)
    before = contents(copy)
    refused(smalti_cli("train", TINY, "--out", copy, "--resume"), "no checkpoint can be read", "state.pt")
    assert contents(copy) == before


# Output.


def test_a_folder_that_holds_a_run_is_left_alone(smalti_cli: Verb, copy: Path) -> None:
    before = contents(copy)
    refused(smalti_cli("train", TINY, "--out", copy), f"{copy} is not empty", "resume")
    assert contents(copy) == before


def test_a_run_of_another_recipe_is_not_continued(smalti_cli: Verb, copy: Path) -> None:
    before = contents(copy)
    result = smalti_cli("train", TINY, "--out", copy, "--resume", "--set", "optim.generator.lr=0.5")
    refused(result, "another recipe", "optim.generator.lr")
    assert contents(copy) == before


def test_a_folder_that_holds_something_else_is_left_alone(smalti_cli: Verb, photos: Path) -> None:
    before = contents(photos)
    refused(smalti_cli("train", TINY, "--out", photos), "not empty")
    refused(smalti_cli("train", TINY, "--out", photos, "--resume"), "holds no run to resume")
    refused(smalti_cli("train", TINY, "--out", photos / "a.png"), "is a file")
    assert contents(photos) == before


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Called, it lets no file of this process grow beyond 2 KiB: writing then fails as on a full disk."""
    import resource
    import signal

    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write then returns an error
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (2048, former[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, former)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_loses_no_file_that_was_there(
    smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path, full_disk: Callable[[], None]
) -> None:
    import numpy as np

    out = tmp_path / "x.npz"
    write_npz(out, [("a", np.zeros(4))])
    before = out.read_bytes()
    Image.effect_noise((256, 256), 90).convert("RGB").save(photos / "noise.png")
    full_disk()
    refused(smalti_cli("encode", trained, "--data", photos, "--out", out, "--force", "--latents"), "File too large")
    assert out.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "x.npz"}


def test_a_full_disk_during_training_keeps_the_checkpoints(copy: Path) -> None:
    limit = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY));"
        "sys.argv[0] = 'smalti'; from smalti.cli import main; main()"
    )
    before = contents(copy / "checkpoints")
    arguments = ["train", str(TINY), "--out", str(copy), "--resume", "--set", "engine.max_steps=8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", limit, *arguments], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "File too large" in done.stderr
    after = contents(copy / "checkpoints")
    assert {name: after[name] for name in before} == before
    assert smalti.load(copy).factor == 4


# Images.


@pytest.mark.parametrize("verb", ["evaluate", "encode", "train"])
def test_a_folder_without_images(verb: str, smalti_cli: Verb, trained: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    target: dict[str, list[object]] = {
        "evaluate": [trained],
        "encode": [trained, "--out", tmp_path / "x.npz"],
        "train": [TINY, "--out", tmp_path / "run"],
    }
    refused(smalti_cli(verb, *target[verb], "--data", empty), str(empty), "no image in this folder")
    refused(smalti_cli(verb, *target[verb], "--data", tmp_path / "nowhere"), "nowhere", "no such folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


@pytest.fixture
def broken_files(photos: Path) -> list[str]:
    """Adds files that are no images, or cut short, and odd ones that are fine; returns the names of the former."""
    whole = photos / "a.png"
    Image.open(whole).save(photos / "whole.jpg", quality=95)
    (photos / "cut.jpg").write_bytes((photos / "whole.jpg").read_bytes()[:-200])
    (photos / "whole.jpg").unlink()
    (photos / "text.jpg").write_text("not an image")
    (photos / "nothing.png").write_bytes(b"")
    Image.new("CMYK", (16, 16), (10, 20, 30, 40)).save(photos / "cmyk.jpg")
    Image.new("I;16", (16, 16), 40000).save(photos / "deep.png")
    Image.new("RGB", (1, 1), (255, 0, 0)).save(photos / "dot.png")
    return ["cut.jpg", "nothing.png", "text.jpg"]


def test_broken_files_are_counted_named_once_and_left_out(
    smalti_cli: Verb, trained: Path, photos: Path, broken_files: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    result = smalti_cli("evaluate", trained, "--data", photos, "--metrics", "psnr")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("5 images in ")
    (message,) = (record.getMessage() for record in caplog.records if "left out" in record.getMessage())
    assert message.startswith("3 of 8 images")
    assert all(message.count(name) == 1 for name in broken_files)


def test_an_image_too_small_for_a_metric_says_so(
    smalti_cli: Verb, trained: Path, photos: Path, broken_files: list[str]
) -> None:
    result = smalti_cli("evaluate", trained, "--data", photos)
    assert result.exit_code == 0, result.output
    assert "ssim: 1 of 5 images are left out, it needs at least 6 x 6 pixels" in result.stderr
    only = smalti_cli("evaluate", trained, "--data", photos, "--metrics", "psnr")
    assert "left out, it needs" not in only.stderr


def test_training_goes_on_without_broken_files(
    smalti_cli: Verb, photos: Path, broken_files: list[str], tmp_path: Path
) -> None:
    result = smalti_cli("train", TINY, "--data", photos, "--out", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output


def test_nothing_but_broken_files(smalti_cli: Verb, trained: Path, photos: Path, broken_files: list[str]) -> None:
    for path in photos.rglob("*.*"):
        if path.name not in broken_files:
            path.unlink()
    refused(smalti_cli("evaluate", trained, "--data", photos), "none of the 3 images", *broken_files)


@pytest.mark.parametrize("name", ["cut.jpg", "text.jpg", "nothing.png", "nowhere.png"])
def test_an_image_that_cannot_be_read_is_refused_by_name(
    name: str, smalti_cli: Verb, trained: Path, photos: Path, broken_files: list[str], tmp_path: Path
) -> None:
    refused(smalti_cli("reconstruct", trained, photos / name, "--out", tmp_path / "out"), name)


@pytest.mark.parametrize("name", ["cmyk.jpg", "deep.png", "dot.png"])
def test_odd_images_are_reconstructed(
    name: str, smalti_cli: Verb, trained: Path, photos: Path, broken_files: list[str], tmp_path: Path
) -> None:
    assert smalti_cli("reconstruct", trained, photos / name, "--out", tmp_path / "out").exit_code == 0


def test_a_size_that_the_factor_does_not_divide(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (18, 16)).save(photos / "odd.png")
    arguments = ["encode", trained, "--data", photos, "--out", tmp_path / "x.npz"]
    refused(smalti_cli(*arguments), "odd.png: 16 x 18 pixels", "divisible by the model's factor 4", "--size")
    assert not (tmp_path / "x.npz").exists()
    refused(smalti_cli(*arguments, "--size", 10), "divisible by the model's factor 4")
    assert smalti_cli(*arguments, "--size", 12).exit_code == 0
    assert smalti_cli("evaluate", trained, "--data", photos).exit_code == 0, "evaluate pads"


def test_a_device_that_is_not_there(smalti_cli: Verb, trained: Path, photos: Path) -> None:
    refused(smalti_cli("evaluate", trained, "--data", photos, "--device", "gpu"), "--device gpu")
