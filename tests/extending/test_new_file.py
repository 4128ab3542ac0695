"""A new loss is one new file: in a copy of the package it is found, listed and tested, and nothing else is changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOSS = '''"""Huber: squared near zero, absolute beyond; outliers do not rule."""

from typing import Annotated

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._reduction import Weighting, check_same_shape, reduce


def huber(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    delta: float = 1.0,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), with d = prediction - target, reduced.

    >>> import torch
    >>> huber(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2), reduction="none")
    tensor([[0.1250, 2.5000]])
    """
    check_same_shape(prediction, target)
    values = F.huber_loss(prediction, target, reduction="none", delta=delta)
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class Huber(ComparisonLoss):
    """Huber = mean d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), over (B, C, H, W) (Huber, 1964, et al.).

    (doi:10.1214/aoms/1177703732.)

    Args:
        delta: where the parabola becomes a line, in units of the images.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum``.
        weighting: what a weighted mean divides by.
        per_sample: whether the mean is taken of each sample first.
    """

    def __init__(
        self,
        *,
        delta: Annotated[float, Field(gt=0.0)] = 1.0,
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        self.delta = delta

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One value per element, with shape (B, C, H, W)."""
        return huber(prediction, target, delta=self.delta, reduction="none")
'''

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package and its contract suites, with one file more."""
    root = tmp_path_factory.mktemp("copy")
    ignore = shutil.ignore_patterns("__pycache__", "golden")
    shutil.copytree(ROOT / "smalti", root / "smalti", ignore=ignore)
    shutil.copytree(ROOT / "tests" / "contracts", root / "tests" / "contracts", ignore=ignore)
    for name in ("pyproject.toml", "tests/__init__.py", "tests/conftest.py", "tests/browser.py"):
        shutil.copy(ROOT / name, root / name)
    (root / "smalti" / "losses" / "huber.py").write_text(LOSS)
    return root


@pytest.fixture
def run(copy: Path) -> Run:
    """Runs Python in the copy."""

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, *arguments], cwd=copy, env=environment, capture_output=True, text=True, check=False
        )

    return python


def test_it_is_in_the_table_and_a_recipe_may_name_it(copy: Path, run: Run) -> None:
    found = run("-m", "smalti", "recipes", "terms", "--json")
    assert found.returncode == 0, found.stderr
    (entry,) = (entry for entry in json.loads(found.stdout) if entry["name"] == "huber")
    assert entry == {
        "name": "huber",
        "phase": "generator",
        "formula": "Huber = mean d^2 / 2 where |d| < delta, else delta (|d| - delta / 2), over (B, C, H, W) "
        "(Huber, 1964, et al.)",
        "inputs": ["prediction", "target"],
        "optional": ["weight"],
        "options": ["delta", "reduction", "weighting", "per_sample"],
        "paper": "doi:10.1214/aoms/1177703732",
        "looks_at": "under a `weight` with `weighting: weighted_mean` the sum of the weights",
    }
    assert "| `huber` |" in run("-m", "smalti", "recipes", "terms", "--markdown").stdout
    term = "objective.generator.robust={type: huber, delta: 0.1}"
    wrong = run("-m", "smalti", "recipes", "check", "tiny-vqvae", "--set", term.replace("0.1", "-0.1"))
    assert wrong.returncode == 2
    assert "objective.generator.robust.delta" in wrong.stderr


def test_the_contract_suite_covers_it(run: Run) -> None:
    options = ("-v", "-p", "no:cacheprovider")
    places = ("tests/contracts/test_losses.py", "smalti/losses/huber.py")
    result = run("-m", "pytest", *options, "--doctest-modules", *places, "-k", "huber")
    assert result.returncode == 0, result.stdout[-2000:]
    passed = [line for line in result.stdout.splitlines() if "PASSED" in line]
    assert len([line for line in passed if "huber-Huber" in line]) >= 12
    assert any("losses/huber.py::" in line for line in passed)


def test_the_suite_finds_what_is_wrong_with_it(copy: Path, run: Run) -> None:
    """A loss of another value than its formula's function, without words on an option, does not pass."""
    crooked = LOSS.replace("huber(", "crooked(").replace("class Huber", "class Crooked")
    crooked = crooked.replace("        delta: where", "        where").replace("delta=self.delta,", "delta=0.5,")
    (copy / "smalti" / "losses" / "crooked.py").write_text(crooked)
    result = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts/test_losses.py", "-k", "crooked")
    (copy / "smalti" / "losses" / "crooked.py").unlink()
    assert result.returncode == 1
    for law in ("test_class_equals_its_function", "test_docstring_has_formula_shapes_source_and_options"):
        assert f"{law}[crooked-Crooked]" in result.stdout
