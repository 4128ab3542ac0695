"""Two processes, accumulation and one process with one large batch train the same network."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.job import parameters_after_five_steps

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
