"""A step of a shipped recipe, small, without a data set."""

from collections.abc import Iterable
from typing import Any

import pytest
import torch

from smalti.assembly.fitness import image_shape
from smalti.assembly.recipe import load_recipe, read_document, shipped
from smalti.bench.step import OurStep

BATCH = 4
OF_TOKENS = {"gpt", "far"}  # models that see no image
LATE = 10**9 + 1  # all terms have started by then


# Another recipe of the family, or of the same quantizer, is in the fast suite.
VARIANTS = {"bsq-f8", "simvq-f16", "ibq-f16", "fqgan-dual-f8", "fqgan-triple-f8", "fqgan-dual-f16", "llamagen-f8"}
VARIANTS |= {"wgan", "dcgan", "lsgan", "sngan", "stylegan2-256"}


def in_turn(names: Iterable[str]) -> list[Any]:
    """Parameters of a test: each of ``names``; those of which another stands for the family go to the slow matrix."""
    return [pytest.param(name, marks=[pytest.mark.slow] if name in VARIANTS else []) for name in names]


def with_images() -> list[str]:
    """Shipped recipes whose models see images."""
    return [name for name in shipped() if read_document(name).data["model"]["type"] not in OF_TOKENS]


def step_of(name: str, *overrides: str) -> OurStep:
    """A late step of a recipe's tiny form on random images."""
    recipe = load_recipe(f"tiny-{name}", ["engine.device=cpu", "engine.accumulate=1", *overrides])
    with torch.device("meta"):
        shape = image_shape(recipe, recipe.specs["model"].build(), "data")
    assert shape is not None
    step = OurStep(recipe, torch.randint(0, 256, (BATCH, *shape), dtype=torch.uint8))
    step.batch["label"] = torch.arange(BATCH) % 2
    step.count = LATE
    return step
