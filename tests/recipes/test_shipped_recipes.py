"""Shipped recipes: each passes its check, its tiny form trains, and the presets are those of the originals."""

import json
import math
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

import smalti
from smalti.assembly.recipe import load_recipe, read_document, shipped
from tests.recipes.steps import in_turn

RECIPES = ("llamagen-f16", "llamagen-f8", "quickstart", "vae-kl-f8", "vqgan-f16", "vqvae")
ADVERSARIAL = tuple(name for name in RECIPES if name != "vqvae")

# What the originals' models hold: feature networks and discriminator apart.
PARAMETERS = {
    "llamagen-f16": 71_883_403,
    "llamagen-f8": 70_109_835,
    "vae-kl-f8": 83_653_863,
    "vqgan-f16": 72_141_699,
}
FACTORS = {"llamagen-f16": 16, "llamagen-f8": 8, "quickstart": 4, "vae-kl-f8": 8, "vqgan-f16": 16, "vqvae": 4}
FACTORS |= {"fsq-f8": 8, "lfq-f8": 8, "bsq-f8": 8, "rqvae-f8": 8, "simvq-f16": 16, "ibq-f16": 16}
# Codes of a plane, planes, width of a code, as published, and the weights of the terms over codes.
QUANTIZERS: dict[str, tuple[int, int, int, dict[str, float]]] = {
    "fsq-f8": (1000, 1, 4, {}),
    "lfq-f8": (2**18, 1, 18, {"entropy": 0.1, "commitment": 0.25}),
    "bsq-f8": (2**18, 1, 18, {"entropy": 0.1}),
    "simvq-f16": (65_536, 1, 128, {"codebook": 1.0, "commitment": 0.25}),
    "ibq-f16": (16_384, 1, 256, {"codebook": 1.25, "commitment": 2.0, "entropy": 0.05}),
    "rqvae-f8": (16_384, 4, 256, {"commitment": 0.25}),
}


def plain(name: str) -> dict[str, Any]:
    """The resolved recipe."""
    return load_recipe(name).plain()


def on_meta(name: str) -> Any:
    """The recipe's model without memory."""
    with torch.device("meta"):
        return load_recipe(name).specs["model"].build()


def test_all_recipes_are_shipped() -> None:
    assert set(RECIPES) <= set(shipped())


@pytest.mark.parametrize("name", shipped())
def test_recipe_and_its_tiny_form_pass_the_check(name: str) -> None:
    load_recipe(name)
    load_recipe(f"tiny-{name}")


@pytest.mark.parametrize("name", shipped())
def test_recipe_can_be_read_on_one_page(name: str) -> None:
    lines = (resources.files("smalti.recipes") / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 120
    assert lines[0].startswith("# ")


def of_autoencoders() -> list[str]:
    """Shipped recipes of tokenizers of photos; generators have their own tests, in tests/gan and beside this one."""
    recipes = {name: read_document(name).data for name in shipped()}
    return [
        name
        for name, data in recipes.items()
        if data["model"]["type"] == "autoencoder" and data["data"]["source"]["type"] != "digits"
    ]


@pytest.mark.parametrize("name", in_turn(of_autoencoders()))
def test_tiny_form_trains_measures_and_can_be_loaded(name: str, tmp_path: Path) -> None:
    # Whole validation images are what the tiny forms are measured on; a corner of them is enough here.
    overrides = ["engine.max_steps=3", "engine.log_every=1", "engine.sample_every=3"]
    overrides += ["validation.data.transform.size=64", "validation.data.transform.crop=center"]
    phases = list(load_recipe(f"tiny-{name}").terms)
    if "discriminator" in phases:
        overrides += [f"objective.{phase}.adversarial.start=1" for phase in phases]
    result = smalti.train(f"tiny-{name}", overrides, out=tmp_path / "run", quiet=True)
    assert result.finished
    assert result.step == 3
    assert result.evaluation["images"] == ["chelsea"]
    assert math.isfinite(result.evaluation["psnr"])

    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "train/generator/total" in line)
    assert last["step"] == 3
    for phase in phases:
        assert math.isfinite(last[f"train/{phase}/total"])
        assert last[f"train/{phase}/skipped_steps"] == 0
    if "discriminator" in phases:
        assert last["train/generator/adversarial/weight"] != 0.0
        assert 0.0 < last["train/generator/gradient_norm/adversarial_share"] < 1.0

    model = smalti.load(tmp_path / "run")
    images = torch.zeros(1, 3, 2 * model.factor, 3 * model.factor)
    assert model.reconstruct(images).shape == images.shape


@pytest.mark.parametrize("name", PARAMETERS)
def test_preset_has_as_many_parameters_as_the_original(name: str) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("name", FACTORS)
def test_factor_is_the_one_in_the_name(name: str) -> None:
    assert on_meta(name).factor == FACTORS[name]


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_discriminator_and_generator_start_together(name: str) -> None:
    objective = plain(name)["objective"]
    starts = {phase: terms["adversarial"]["start"] for phase, terms in objective.items()}
    assert starts["generator"] == starts["discriminator"]


def weights(name: str) -> dict[str, dict[str, float]]:
    """Phase -> term -> weight."""
    objective = plain(name)["objective"]
    return {
        phase: {term: value.get("weight", 1.0) for term, value in terms.items()} for phase, terms in objective.items()
    }


@pytest.mark.parametrize("name", QUANTIZERS)
def test_presets_of_quantizers_hold_published_sizes_and_weights(name: str) -> None:
    [(_, quantizer)] = on_meta(name).bottleneck.quantizers()
    terms = {term: weight for term, weight in weights(name)["generator"].items() if term in quantizer.terms}
    assert (quantizer.size, quantizer.depth, quantizer.channels, terms) == QUANTIZERS[name]


def test_taming_preset_holds_the_numbers_of_its_imagenet_config() -> None:
    recipe = plain("vqgan-f16")
    assert weights("vqgan-f16") == {
        "generator": {"l1": 1.0, "perceptual": 1.0, "codebook": 0.25, "commitment": 1.0, "adversarial": 0.8},
        "discriminator": {"adversarial": 0.5},
    }
    adversarial = recipe["objective"]["generator"]["adversarial"]
    assert adversarial["type"] == "hinge"
    assert adversarial["start"] == 250_001
    assert list(adversarial["adaptive"]["reference"]) == ["l1", "perceptual"]
    quantizer = recipe["model"]["bottleneck"]["codebooks"]["codebook"]["quantizer"]
    assert (quantizer["size"], quantizer["channels"], quantizer["init"]) == (1024, 256, "uniform")
    for phase in ("generator", "discriminator"):
        assert recipe["optim"][phase]["lr"] == pytest.approx(4.5e-6 * recipe["data"]["batch_size"])
        assert list(recipe["optim"][phase]["betas"]) == [0.5, 0.9]


def test_latent_diffusion_preset_holds_the_numbers_of_its_config() -> None:
    recipe = plain("vae-kl-f8")
    assert weights("vae-kl-f8") == {
        "generator": {"nll": 1.0, "kl": 1e-6, "adversarial": 0.5},
        "discriminator": {"adversarial": 0.5},
    }
    generator = recipe["objective"]["generator"]
    assert {name: value.get("weight", 1.0) for name, value in generator["nll"]["distances"].items()} == {
        "l1": 1.0,
        "lpips": 1.0,
    }
    assert (generator["nll"]["likelihood"], generator["nll"]["scale"]) == ("latent-diffusion", "fixed")
    assert generator["nll"]["reduction"] == generator["kl"]["reduction"] == "batch_sum"
    assert list(generator["adversarial"]["adaptive"]["reference"]) == ["nll"]
    assert generator["adversarial"]["start"] == 50_001
    images = recipe["data"]["batch_size"] * recipe["engine"]["accumulate"]
    assert recipe["optim"]["generator"]["lr"] == pytest.approx(4.5e-6 * images)


@pytest.mark.parametrize("name", ["llamagen-f16", "llamagen-f8"])
def test_llamagen_presets_hold_the_numbers_of_its_script(name: str) -> None:
    recipe = plain(name)
    assert weights(name) == {
        "generator": {"mse": 1.0, "perceptual": 1.0, "codebook": 1.0, "commitment": 0.25, "adversarial": 0.5},
        "discriminator": {"adversarial": 0.25},
    }
    adversarial = recipe["objective"]["generator"]["adversarial"]
    assert adversarial["start"] == 19_999
    assert adversarial.get("adaptive") is None
    quantizer = recipe["model"]["bottleneck"]["codebooks"]["codebook"]["quantizer"]
    assert (quantizer["size"], quantizer["channels"], quantizer["normalize"]) == (16384, 8, True)
    for phase in ("generator", "discriminator"):
        assert list(recipe["optim"][phase]["betas"]) == [0.9, 0.95]
        assert recipe["optim"][phase]["clip"] == 1.0
    epoch = 1_281_167 // (8 * recipe["data"]["batch_size"])
    assert recipe["engine"]["max_steps"] == 40 * epoch


def test_quickstart_is_what_the_readme_says() -> None:
    recipe = plain("quickstart")
    assert recipe["model"]["bottleneck"]["codebooks"]["codebook"]["quantizer"]["size"] <= 1024
    adversarial = recipe["objective"]["generator"]["adversarial"]
    assert adversarial["start"] <= recipe["engine"]["max_steps"] / 2
    # An adaptive weight of w makes the adversary's gradient w times the reference's: w / (1 + w) of both.
    assert set(adversarial["adaptive"]["reference"]) == {"l1", "mse"}
    assert adversarial["weight"] / (1 + adversarial["weight"]) >= 0.05
    held_out = recipe["validation"]["data"]["source"]["include"]
    assert held_out == recipe["data"]["source"]["exclude"] == ["chelsea"]
