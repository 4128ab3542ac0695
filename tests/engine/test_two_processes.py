"""Two processes, accumulation and one process with one large batch train the same network."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.job import ROOT, command, environment, parameters_after_five_steps, run_until_signal, validated

Parameters = dict[str, list[float]]


def largest_difference(first: Parameters, second: Parameters) -> float:
    assert first.keys() == second.keys()
    pairs = [(torch.tensor(first[name]), torch.tensor(second[name])) for name in first]
    return max(float((one - other).abs().max()) for one, other in pairs)


@pytest.mark.parametrize("space", ["codes", "gaussian"])
def test_two_processes_equal_one(tmp_path: Path, space: str, of_two_processes: dict[str, Any]) -> None:
    alone = parameters_after_five_steps(tmp_path, {"space": space, "batch_size": 8})
    assert largest_difference(alone, of_two_processes[f"five_steps-{space}"]) < 1e-6


def test_accumulation_equals_one_large_batch(tmp_path: Path) -> None:
    large = parameters_after_five_steps(tmp_path / "large", {"space": "gaussian", "batch_size": 8, "balanced": False})
    small = {"space": "gaussian", "batch_size": 4, "accumulate": 2, "balanced": False}
    assert largest_difference(large, parameters_after_five_steps(tmp_path / "small", small)) < 1e-6


@pytest.mark.parametrize("count", [1, 5])
def test_unequal_shares_of_held_out_images_measure_the_same(
    tmp_path: Path, count: int, of_two_processes: dict[str, Any]
) -> None:
    alone = validated(tmp_path, {"space": "gaussian", "held_out_images": count})
    assert of_two_processes[f"validated-{count}"] == pytest.approx(alone, rel=1e-9)
    assert of_two_processes["validated-codes"]


@pytest.mark.slow
def test_signal_to_the_launcher_saves_one_step_on_all_processes(tmp_path: Path) -> None:
    options = {"max_steps": 100_000, "workers": 2}
    run_until_signal(tmp_path / "job", options, 5, processes=2)  # torch.distributed.run itself ends with 1
    checkpoints = list((tmp_path / "job" / "0" / "checkpoints").iterdir())
    assert len(checkpoints) == 1
    assert int(checkpoints[0].name) >= 5
    assert json.loads((checkpoints[0] / "manifest.json").read_text())["step"] == int(checkpoints[0].name)


@pytest.mark.slow
def test_processes_of_a_killed_launcher_save_and_free_the_folder(tmp_path: Path) -> None:
    (tmp_path / "questions.json").write_text(json.dumps([["train", {"max_steps": 100_000, "workers": 2}]]))
    log, lock = tmp_path / "0" / "metrics.jsonl", tmp_path / "0" / ".lock"
    with subprocess.Popen(
        command(tmp_path, 2), cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as launcher:
        wait_until(lambda: log.exists() and len(log.read_bytes().splitlines()) > 5)
        assert lock.exists()
        launcher.kill()
    wait_until(lambda: not lock.exists())
    assert len(list((tmp_path / "0" / "checkpoints").iterdir())) == 1


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(6000):
        if true():
            return
        time.sleep(0.01)
    raise TimeoutError
