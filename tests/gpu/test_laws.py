"""The laws of :mod:`tests.gpu.laws`: on a GPU by ``make test-gpu``, and on a CPU by stand-ins."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch

from smalti.assembly.recipe import shipped
from tests.gpu.laws import LAWS, RECIPES, step_on, waits_of

ROOT = Path(__file__).parents[2]
# On a CPU these read values that are there anyway: labels are looked at, and RMSprop decides on the host.
READ_ON_A_CPU = ("biggan-32", "sngan", "wgan", "wgan-digits")


@pytest.mark.gpu
@pytest.mark.parametrize("law", LAWS)
def test_law_on_a_gpu(law: str, device: torch.device, tmp_path: Path) -> None:
    LAWS[law](device, tmp_path)


# The second on a CPU: tests/recipes/test_memory_format.py follows every recipe.
LONG = {"nothing_waits_between_log_steps", "images_stay_channels_last"}


@pytest.mark.parametrize("law", [pytest.param(law, marks=[pytest.mark.slow] if law in LONG else []) for law in LAWS])
def test_law(law: str, device: torch.device, tmp_path: Path) -> None:
    LAWS[law](device, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if name not in {*RECIPES, *READ_ON_A_CPU}])
def test_no_step_of_a_recipe_waits(name: str, device: torch.device) -> None:
    assert not waits_of(step_on(device, name), device)


# An autoencoder that quantizes, and a GAN.
QUICK = ("quickstart", "dcgan")


def told_of(names: Iterable[str]) -> str:
    """What went wrong on a device on which nothing is computed, in a process of its own."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.gpu.fake_device", *names]
    surroundings = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    found = subprocess.run(command, cwd=ROOT, env=surroundings, capture_output=True, text=True, check=False)
    return found.stdout + found.stderr


def test_no_update_mixes_devices_or_waits() -> None:
    assert told_of(QUICK).split("\n") == [*QUICK, ""]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if name not in QUICK])
def test_no_update_of_a_recipe_mixes_devices_or_waits(name: str) -> None:
    assert told_of([name]) == f"{name}\n"
