"""Every YAML block of docs/from-mmagic.md is a recipe's objective: it is read, built, and evaluated on tiny tensors."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F

from smalti.assembly.recipe import Recipe, validate
from smalti.config import Document
from smalti.extractors import Extractor
from smalti.extractors.vgg19 import BEFORE_RELU
from smalti.losses import Loss
from smalti.losses._features import LAYER_WEIGHTS
from smalti.objectives import Clock
from smalti.registry import names
from tests.contracts.examples import options_of, value_of

TEXT = (Path(__file__).parents[2] / "docs" / "from-mmagic.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^```yaml (\S+)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL))

# The classes of the guide's two tables, and the configurations it shows.
GUIDE = """
GANLoss GradientPenaltyLoss DiscShiftLoss CLIPLoss L1CompositionLoss MSECompositionLoss CharbonnierCompLoss FaceIdLoss
LightCNNFeatureLoss GradientLoss L1Loss MSELoss CharbonnierLoss MaskedTVLoss PerceptualLoss TransferalPerceptualLoss
CLIPLossComps DiscShiftLossComps GradientPenaltyLossComps R1GradientPenaltyComps FaceIdLossComps GANLossComps
GeneratorPathRegularizerComps loss_config data_info GANWithCustomizedLoss AdvLoss PSNRLoss tv_loss
"""
PLAIN = """
prediction target fake real logits_real logits_fake features_real features_fake discriminator generator latents alpha
maps textures
"""


def recipe_of(block: str) -> Recipe:
    """The recipe of a block, its networks small and random."""
    objective = yaml.safe_load(BLOCKS[block])
    for terms in objective.values():
        for term in terms.values():
            if "extractor" in term:
                term["extractor"] |= {"weights": "random", "widths": [4, 4, 8, 8, 8]}
    optim = {"betas": [0.5, 0.9]}
    whole: dict[str, Any] = {
        "model": {"type": "tests.docs.everything.Everything"},
        "objective": objective,
        "data": {
            "source": {"type": "image_folder", "path": "x", "table": "x.csv"},
            "transform": {"size": 16, "crop": "random"},
        },
        "optim": {player: optim for player in objective},
        "engine": {"max_steps": 1},
    }
    if "discriminator" in objective:
        whole["discriminator"] = {"type": "patch", "channels": 4, "layers": 1, "norm": "none"}
    recipe = validate(Document(whole))
    for specs in recipe.terms.values():
        for spec in specs.values():
            needed = options_of(spec.loss)
            if isinstance(needed.get("extractor"), Extractor):
                spec.arguments.setdefault("extractor", needed["extractor"])
    return recipe


def context(dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    columns = {f"batch.{name}": value_of(name, dtype) for name in ("mask", "foreground", "background", "text")}
    return {name: value_of(name, dtype) for name in PLAIN.split()} | columns


def terms_of(recipe: Recipe, player: str) -> dict[str, Any]:
    return {name: spec.build(name) for name, spec in recipe.terms[player].items()}


def totals(recipe: Recipe, clock: Clock | None = None) -> dict[str, Tensor]:
    """Weighted sums of both phases."""
    clock, values = clock or Clock(), context()
    return {
        player: sum(term.at(clock) * term(values).total for term in terms_of(recipe, player).values())
        for player in recipe.terms
    }


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_is_checked_built_and_evaluated(block: str) -> None:
    torch.manual_seed(0)
    for total in totals(recipe_of(block)).values():
        assert total.shape == ()
        assert torch.isfinite(total)


def test_every_entry_of_the_guide_is_on_the_page() -> None:
    assert [entry for entry in GUIDE.split() if not re.search(rf"\b{entry}\b", TEXT)] == []
    for kind in ("vanilla", "lsgan", "l1", "wgan", "hinge", "smgan", "wgan-logistic-ns"):
        assert f'gan_type="{kind}"' in TEXT
        assert kind in BLOCKS
    assert len(BLOCKS) >= 24


def test_every_term_in_a_table_exists() -> None:
    table = TEXT.partition("## What MMagic's trainers really use")[2]
    used = set(re.findall(r"`(\w+)`", table.partition("```")[0]))
    assert used - {"cycle"} <= set(names(Loss))


def bce(logits: Tensor, label: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


# MMagic's formulas, real + fake for the discriminator (never weighted), and the generator's at the weight of the page.
MMAGIC = {
    "vanilla": (lambda r, f: bce(r, 1.0) + bce(f, 0.0), lambda f: 0.001 * bce(f, 1.0)),
    "wgan-logistic-ns": (lambda r, f: F.softplus(-r).mean() + F.softplus(f).mean(), lambda f: F.softplus(-f).mean()),
    "lsgan": (lambda r, f: ((r - 1) ** 2).mean() + (f**2).mean(), lambda f: ((f - 1) ** 2).mean()),
    "l1": (lambda r, f: (r - 1).abs().mean() + f.abs().mean(), lambda f: (f - 1).abs().mean()),
    "wgan": (lambda r, f: f.mean() - r.mean(), lambda f: -0.0001 * f.mean()),
    "hinge": (lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(), lambda f: -0.1 * f.mean()),
    "disc-shift": (
        lambda r, f: f.mean() - r.mean() + 0.0005 * (r**2).mean() + 0.0005 * (f**2).mean(),
        lambda f: -f.mean(),
    ),
    "disc-shift-real": (lambda r, f: f.mean() - r.mean() + 0.001 * (r**2).mean(), lambda f: -f.mean()),
}


@pytest.mark.parametrize("block", MMAGIC)
def test_weighted_sums_are_those_of_the_original(block: str) -> None:
    discriminator, generator = MMAGIC[block]
    found, values = totals(recipe_of(block)), context()
    real, fake = values["logits_real"], values["logits_fake"]
    torch.testing.assert_close(found["discriminator"], discriminator(real, fake))
    torch.testing.assert_close(found["generator"], generator(fake))


def test_lazy_terms_have_the_weights_that_the_original_multiplies_by_hand() -> None:
    recipe = recipe_of("stylegan2")
    r1, path = terms_of(recipe, "discriminator")["r1"], terms_of(recipe, "generator")["path"]
    assert [r1.at(Clock(updates=n)) for n in (0, 1, 15, 16)] == [80.0, 0.0, 0.0, 80.0]
    assert [path.at(Clock(updates=n)) for n in (0, 1, 3, 4)] == [8.0, 0.0, 0.0, 8.0]


def test_the_five_layers_are_the_defaults() -> None:
    explicit = recipe_of("perceptual").terms["generator"]["perceptual"]
    assert tuple(explicit.arguments["layer_weights"]) == LAYER_WEIGHTS
    assert tuple(explicit.arguments["extractor"].arguments["layers"]) == BEFORE_RELU
    assert "layer_weights" not in recipe_of("style").terms["generator"]["perceptual"].arguments
