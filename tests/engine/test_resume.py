"""A resumed run equals the uninterrupted one bit for bit: weights, averages, moments, states of terms, and the log."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest

from tests.engine.job import PAIRS, case, ema, launch, resumed_run_differs, run_until_signal
from tests.engine.toys import differences, everything, tiny_trainer

OTHERS = ("residual", "fsq", "gumbel")  # quantizers with a state of several steps, with none, and with a temperature


@pytest.mark.parametrize(("precision", "processes", "workers"), [pair for pair in PAIRS if pair[1] == 1])
def test_resumed_run_equals_uninterrupted_run(tmp_path: Path, precision: str, processes: int, workers: int) -> None:
    assert resumed_run_differs(tmp_path, case(precision, workers)) == []


@pytest.mark.parametrize("precision", [precision for precision, processes, _ in PAIRS if processes == 2])
def test_resumed_run_of_two_processes_equals_uninterrupted_run(
    precision: str, of_two_processes: dict[str, Any]
) -> None:
    assert of_two_processes[f"resume-{precision}"] == []


@pytest.mark.parametrize("space", OTHERS)
def test_runs_of_other_quantizers_resume_exactly(tmp_path: Path, space: str) -> None:
    assert resumed_run_differs(tmp_path, case("fp32", 0, space=space)) == []


def test_critic_steps_on_fresh_batches_resume_exactly(tmp_path: Path) -> None:
    options = case("fp32", 0, 1, batches="fresh", cycle=["discriminator*2", "generator"], space="gaussian")
    assert resumed_run_differs(tmp_path, options) == []


def test_killed_run_is_saved_and_resumes_exactly(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 30, "accumulate": 2, "workers": 2}
    lines = random.Random().randrange(3, 16)
    assert run_until_signal(tmp_path / "job", options, lines) == 0
    folder = tmp_path / "job" / "0"
    stopped = sorted((folder / "checkpoints").iterdir())
    assert len(stopped) == 1
    assert lines <= int(stopped[0].name) < 30
    assert not (folder / "model").exists()
    resumed = tiny_trainer(folder, ema=ema(), **options)
    assert resumed.run(resume=True).finished
    straight = tiny_trainer(tmp_path / "straight", ema=ema(), **options)
    straight.run()
    assert differences(everything(straight), everything(resumed)) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("processes", [1, 2])
def test_every_combination_resumes_exactly(tmp_path: Path, processes: int) -> None:
    cases = [
        ("resume", case(precision, workers, accumulate, space=space))
        for precision, workers, accumulate, space in itertools.product(
            ("fp32", "bf16"), (0, 2), (1, 2), ("codes", "gaussian")
        )
    ]
    cases += [("resume", case("bf16", 2, 2, space=space)) for space in OTHERS]
    assert launch(tmp_path, cases, processes) == [[]] * len(cases)
