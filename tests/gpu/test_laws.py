"""The laws of :mod:`tests.gpu.laws`: on a GPU by ``make test-gpu``, and on a CPU by stand-ins."""

from pathlib import Path

import pytest
import torch

from smalti.assembly.recipe import shipped
from tests.gpu.laws import LAWS, RECIPES, step_on, waits_of

# On a CPU these read values that are there anyway: labels are looked at, and RMSprop decides on the host.
READ_ON_A_CPU = ("biggan-32", "sngan", "wgan", "wgan-digits")


@pytest.mark.gpu
@pytest.mark.parametrize("law", LAWS)
def test_law_on_a_gpu(law: str, device: torch.device, tmp_path: Path) -> None:
    LAWS[law](device, tmp_path)


LONG = {"nothing_waits_between_log_steps"}


@pytest.mark.parametrize("law", [pytest.param(law, marks=[pytest.mark.slow] if law in LONG else []) for law in LAWS])
def test_law(law: str, device: torch.device, tmp_path: Path) -> None:
    LAWS[law](device, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in shipped() if name not in {*RECIPES, *READ_ON_A_CPU}])
def test_no_step_of_a_recipe_waits(name: str, device: torch.device) -> None:
    assert not waits_of(step_on(device, name), device)
