"""What a run finds again: damaged manifests and logs, good checkpoints beside bad ones, failures that go on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.engine.checkpoint import Checkpoint, CheckpointFolder
from smalti.engine.logging import MetricsFile
from smalti.registry import UserError
from tests.engine.test_loop import poisoned, records
from tests.engine.toys import differences, everything, tiny_trainer


def at(step: int, **fields: Any) -> Checkpoint:
    return Checkpoint(step=step, networks={"generator": {"w": torch.ones(2)}}, state={"step": step}, **fields)


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no step": (lambda m: {k: v for k, v in m.items() if k != "step"}, "step=None, expected 2"),
    "step of another folder": (lambda m: m | {"step": 1}, "step=1, expected 2"),
    "step is a word": (lambda m: m | {"step": "2"}, "step='2', expected 2"),
    "unknown format": (lambda m: m | {"format": 99}, "format=99, expected 1"),
    "no format": (lambda m: {k: v for k, v in m.items() if k != "format"}, "format=None, expected 1"),
    "sha256 empty": (lambda m: m | {"sha256": {}}, "sha256 lacks state.pt"),
    "sha256 a list": (lambda m: m | {"sha256": []}, "sha256 is no mapping"),
    "sha256 of numbers": (lambda m: m | {"sha256": dict.fromkeys(m["sha256"], 1)}, "sha256 is no mapping"),
    "sha256 without state": (lambda m: m | {"sha256": {"generator.safetensors": "0"}}, "sha256 lacks state.pt"),
    "sha256 outside": (lambda m: m | {"sha256": {**m["sha256"], "../x": "0"}}, "names '../x'"),
    "best step a word": (lambda m: m | {"best_step": "x"}, "best_step='x'"),
    "a list": (lambda m: [m], "a list, expected a mapping"),
    "null": (lambda m: None, "a NoneType, expected a mapping"),
}


@pytest.mark.parametrize("kind", MANIFESTS)
def test_a_manifest_that_is_wrong_is_damage(tmp_path: Path, kind: str) -> None:
    told: list[str] = []
    folder = CheckpointFolder(tmp_path, report=told.append)
    folder.save(at(1))
    path = folder.save(at(2)) / "manifest.json"
    change, message = MANIFESTS[kind]
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert folder.find_latest() == 1
    assert len(told) == 1
    assert "00000002 is damaged: manifest.json" in told[0]
    assert message in told[0]


def test_a_manifest_nested_without_end_is_damage(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(at(1))
    (folder.save(at(2)) / "manifest.json").write_text("[" * 100_000)
    assert folder.find_latest() == 1


def test_a_state_without_its_parts_is_damage(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, parts=("train",))
    folder.save(Checkpoint(step=1, networks=at(1).networks, state={"train": {}}))
    folder.save(at(2))
    assert folder.find_latest() == 1


def test_good_checkpoints_are_not_pushed_out_by_bad_ones(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in range(1, 9):
        folder.save(at(step, good=step < 5, best_step=1))
    assert folder.steps() == [1, 3, 4, 8]
    assert folder.good_steps() == [1, 3, 4]
    manifest = json.loads((folder.folder(8) / "manifest.json").read_text())
    assert (manifest["best_step"], manifest["good"]) == (1, False)


def test_failures_in_a_row_survive_a_resumption(tmp_path: Path) -> None:
    first = poisoned(tmp_path / "run", *range(2, 20), max_steps=5, skip_limit=5, checkpoint_every=2, keep=1)
    with pytest.raises(UserError, match=r"diverged by step 5, no model is saved .*generator: 3.*checkpoints/00000002"):
        first.run()
    assert not (tmp_path / "run" / "model").exists()
    assert first.checkpoints.steps() == [2, 5]
    again = poisoned(tmp_path / "run", *range(2, 20), max_steps=20, skip_limit=5, checkpoint_every=2, keep=1)
    with pytest.raises(UserError, match=r"stopped at step 7: 5 updates in a row.*checkpoints/00000002"):
        again.run(resume=True)


def test_one_failure_at_the_end_leaves_the_model_as_it_was(tmp_path: Path) -> None:
    assert poisoned(tmp_path / "run", 3, max_steps=4).run().finished
    assert (tmp_path / "run" / "model").is_dir()


def test_weights_that_are_not_finite_are_never_saved_as_a_model(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=4, checkpoint_every=1)
    cycle = trainer.run_cycle

    def spoiling(measure: bool = False) -> Any:
        turns = cycle(measure)
        if trainer.state.step == 4:
            next(trainer.model.parameters()).data[0] = float("nan")
        return turns

    trainer.run_cycle = spoiling  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"diverged by step 4.*not finite.*last good checkpoint is .*00000003"):
        trainer.run()
    assert not (tmp_path / "run" / "model").exists()


LINES = [b'{"step": %d, "value": 1}\n' % step for step in range(1, 7)]
LOGS: dict[str, tuple[list[bytes], list[int]]] = {
    "no JSON": ([*LINES[:2], b"{oops\n", *LINES[3:]], [1, 2, 4, 5]),
    "half a line": ([*LINES[:2], b'{"step": 3, "va', *LINES[3:]], [1, 2, 5]),
    "binary": ([*LINES[:2], b"\xff\xfe\x00\r\n", *LINES[3:]], [1, 2, 4, 5]),
    "an empty line": ([*LINES[:2], b"\n", *LINES[3:]], [1, 2, 4, 5]),
    "of a later step": ([*LINES[:2], b'{"step": 900}\n', *LINES[3:]], [1, 2, 4, 5]),
    "a list": ([*LINES[:2], b"[3]\n", *LINES[3:]], [1, 2, 4, 5]),
    "infinite step": ([*LINES[:2], b'{"step": 1e999}\n', *LINES[3:]], [1, 2, 4, 5]),
    "cut after line 3": (LINES[:3], [1, 2, 3]),
    "zeros": ([bytes(100)], []),
    "empty": ([], []),
}


@pytest.mark.parametrize("kind", LOGS)
def test_what_is_readable_of_a_damaged_log_goes_on(tmp_path: Path, kind: str) -> None:
    content, steps = LOGS[kind]
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.path.write_bytes(b"".join(content))
    told = file.go_back(5, lines=5)
    assert f"{5 - len(steps)} lines are lost" in told
    assert "metrics.damaged-1.jsonl" in told
    assert (tmp_path / "metrics.damaged-1.jsonl").read_bytes() == b"".join(content)
    file.write({"step": 6})
    assert [record["step"] for record in records(tmp_path)] == [*steps, 6]
    assert file.flush() == len(steps) + 1


def test_a_log_that_is_gone_or_a_folder_is_told(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    assert file.go_back(5, lines=5) == "metrics.jsonl: 5 lines are lost"
    file.path.mkdir()
    assert "metrics.damaged-1.jsonl" in file.go_back(5, lines=5)
    file.write({"step": 6})
    assert file.lines == 1


@pytest.mark.parametrize("tail", [b"", b'{"step": 6, "val', bytes(700), LINES[5]])
def test_what_a_crash_leaves_at_the_end_is_no_damage(tmp_path: Path, tail: bytes) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.path.write_bytes(b"".join(LINES[:5]) + tail)
    assert file.go_back(5, lines=5) == ""
    assert file.path.read_bytes() == b"".join(LINES[:5])


def test_a_run_with_a_damaged_log_goes_on_and_says_what_is_lost(tmp_path: Path) -> None:
    straight = tiny_trainer(tmp_path / "straight", max_steps=6)
    straight.run()
    tiny_trainer(tmp_path / "run", max_steps=4).run()
    path = tmp_path / "run" / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"{\n", *lines[2:]]))
    again = tiny_trainer(tmp_path / "run", max_steps=6)
    again.run(resume=True)
    assert differences(everything(straight), everything(again)) == []
    found = records(tmp_path / "run")
    assert [record["step"] for record in found if "warning" not in record] == [1, 3, 4, 5, 6]
    assert "1 lines are lost" in next(record["warning"] for record in found if "warning" in record)
