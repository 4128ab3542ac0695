"""A checkpoint is there whole or not at all, and nothing that was saved is lost."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from smalti.engine import checkpoint as module
from smalti.engine.checkpoint import Checkpoint, CheckpointFolder
from smalti.engine.run_folder import RunFolder
from smalti.registry import UserError
from smalti.writing import write_whole
from tests.engine.toys import tiny_trainer


def at(step: int, size: int = 4, **fields: Any) -> Checkpoint:
    networks = {"generator": {"w": torch.full((size,), float(step))}}
    return Checkpoint(step=step, networks=networks, state={"step": step}, **fields)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(at(7))
    loaded = folder.load(7)
    assert loaded.step == 7
    assert loaded.state == {"step": 7}
    assert torch.equal(loaded.networks["generator"]["w"], torch.full((4,), 7.0))
    assert sorted(json.loads((folder.folder(7) / "manifest.json").read_text())["sha256"]) == [
        "generator.safetensors",
        "state.pt",
    ]


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    shared = torch.arange(3.0)
    CheckpointFolder(tmp_path).save(Checkpoint(step=1, networks={"n": {"a": shared, "b": shared}}, state={}))
    assert torch.equal(load_file(tmp_path / "00000001" / "n.safetensors")["b"], shared)


def test_newest_and_best_are_kept(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in range(1, 7):
        folder.save(at(step, best_step=2 if step >= 2 else None))
    assert folder.steps() == [2, 5, 6]


@pytest.mark.parametrize("file", ["generator.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "remove", "shorten"])
def test_damaged_checkpoint_is_reported_and_the_previous_one_used(tmp_path: Path, file: str, damage: str) -> None:
    told: list[str] = []
    folder = CheckpointFolder(tmp_path, keep=1, report=told.append)
    folder.save(at(1, best_step=1))
    folder.save(at(2, best_step=1))
    path = folder.folder(2) / file
    {"flip": flip_a_byte, "remove": Path.unlink, "shorten": lambda path: os.truncate(path, 5)}[damage](path)
    if (file, damage) == ("manifest.json", "flip"):
        path.write_text("{")  # its last byte is a line break, which may be any
    assert folder.find_latest() == 1
    assert len(told) == 1
    assert "00000002" in told[0]
    folder.save(at(3))  # the damaged one does not push out the good one that was kept
    assert folder.steps() == [3]
    assert (tmp_path / "damaged-00000002").is_dir()


def test_no_readable_checkpoint_is_an_error_and_none_at_all_is_not(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "none")
    assert folder.find_latest() is None
    folder.save(at(1))
    flip_a_byte(folder.folder(1) / "state.pt")
    with pytest.raises(UserError, match=r"no checkpoint can be read.*state.pt is not as it was written"):
        folder.find_latest()
    assert folder.steps() == [1]


def test_state_with_code_in_it_is_refused(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(Checkpoint(step=1, networks={}, state={"run": subprocess.Popen}))
    with pytest.raises(UserError, match="damaged"):
        folder.load(1)


def test_crash_leaves_nothing_behind_and_loses_nothing(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(at(1))
    shutil.copytree(folder.folder(1), tmp_path / ".unfinished-00000002")
    folder.folder(1).rename(tmp_path / ".replaced-00000001")
    folder.sweep()
    assert [entry.name for entry in tmp_path.iterdir()] == ["00000001"]
    folder.save(at(1, size=9))
    assert len(folder.load(1).networks["generator"]["w"]) == 9
    assert [entry.name for entry in tmp_path.iterdir()] == ["00000001"]


def test_full_disk_leaves_earlier_checkpoints_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save(at(1))

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "flush_to_disk", full)
    with pytest.raises(UserError, match=r"checkpoint 2.*No space left.*steps 1 are intact"):
        folder.save(at(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["00000001"]
    assert folder.find_latest() == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.skipif(shutil.which("mount") is None, reason="no mount here")
def test_disk_that_is_really_full(small_disk: Path) -> None:
    folder = CheckpointFolder(small_disk, keep=1)
    folder.save(at(1, size=20_000))
    with pytest.raises(UserError, match="checkpoint 2"):
        folder.save(at(2, size=40_000))
    assert folder.find_latest() == 1
    folder.save(at(3, size=10_000))
    assert folder.steps() == [3]


def test_full_disk_during_a_run_is_the_users_to_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=4, checkpoint_every=2)

    def full(values: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.folder, "write_evaluation", full)
    with pytest.raises(UserError, match=r"No space left on device.*intact"):
        trainer.run()
    assert trainer.checkpoints.steps() == [2, 4]


def test_resume_after_damage_repeats_the_steps_in_between(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "run", max_steps=4, checkpoint_every=2).run()
    flip_a_byte(tmp_path / "run" / "checkpoints" / "00000004" / "generator.safetensors")
    resumed = tiny_trainer(tmp_path / "run", max_steps=4, checkpoint_every=2)
    assert resumed.run(resume=True).step == 4
    assert resumed.checkpoints.steps() == [2, 4]
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4]


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "run", max_steps=1, space="codes", recipe={}).run()
    with pytest.raises(UserError, match="checkpoint 1 does not fit this recipe"):
        tiny_trainer(tmp_path / "run", max_steps=2, space="gaussian", recipe={}).run(resume=True)


def test_folder_in_use_is_refused_and_untouched(tmp_path: Path) -> None:
    note = tmp_path / "notes.txt"
    note.write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        tiny_trainer(tmp_path, max_steps=1).run()
    with pytest.raises(UserError, match="holds no run"):
        tiny_trainer(tmp_path, max_steps=1).run(resume=True)
    with pytest.raises(UserError, match="is a file"):
        RunFolder(note).claim({}, resume=False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


def test_run_is_not_resumed_with_another_recipe(tmp_path: Path) -> None:
    recipe = {"engine": {"seed": 0, "max_steps": 1}, "optim": {"lr": 1e-4}}
    tiny_trainer(tmp_path / "run", max_steps=1, recipe=recipe).run()
    other = {"engine": {"seed": 1, "max_steps": 2}, "optim": {"lr": 2e-4}}
    with pytest.raises(UserError, match=r"engine\.seed: 0 -> 1\n  optim.lr: 0.0001 -> 0.0002"):
        tiny_trainer(tmp_path / "run", max_steps=2, recipe=other).run(resume=True)
    longer = {"engine": {"seed": 0, "max_steps": 2}, "optim": {"lr": 1e-4}}
    assert tiny_trainer(tmp_path / "run", max_steps=2, recipe=longer).run(resume=True).step == 2


def test_text_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "evaluation.json"
    write_whole(path, "first")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "second")
    assert path.read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["evaluation.json"]
