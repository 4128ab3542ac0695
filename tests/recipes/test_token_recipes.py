"""Recipes of models of tokens: published sizes and numbers, tokenizers they fit, tiny forms that train from nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import smalti
from smalti.assembly.recipe import load_recipe, shipped
from smalti.outputs import predicts_tokens

# Weights as published for ImageNet, and the recipe of the tokenizer.
PUBLISHED = {
    "far-dual-b": (417_104_896, "fqgan-dual-f16"),
    "far-triple-b": (451_707_904, "fqgan-triple-f16"),
    "far-triple-l": (944_776_960, "fqgan-triple-f16"),
    "llamagen-b": (110_888_448, "llamagen-f16"),
    "llamagen-l": (342_910_976, "llamagen-f16"),
    "llamagen-xl": (774_699_520, "llamagen-f16"),
}
TOKENIZERS = {name: tokenizer for name, (_, tokenizer) in PUBLISHED.items()} | {"far-digits": "digits-tokenizer"}


def on_meta(name: str) -> Any:
    """The recipe's model without memory."""
    with torch.device("meta"):
        return load_recipe(name).specs["model"].build()


def of_tokens() -> list[str]:
    return [name for name in shipped() if predicts_tokens(load_recipe(name).model_class)]


def test_these_are_all_of_them() -> None:
    assert set(of_tokens()) == set(TOKENIZERS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_has_as_many_parameters_as_published(name: str) -> None:
    assert sum(parameter.numel() for parameter in on_meta(name).parameters()) == PUBLISHED[name][0]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_model_predicts_the_tokens_of_the_tokenizer_it_names(name: str) -> None:
    model, tokenizer = on_meta(name), on_meta(TOKENIZERS[name])
    assert list(model.codebooks.items()) == list(tokenizer.codebook_sizes.items())
    transform = load_recipe(TOKENIZERS[name]).plain()["data"]["transform"]
    assert [side * tokenizer.factor for side in model.grid] == [transform["size"]] * 2


@pytest.mark.parametrize("name", PUBLISHED)
def test_preset_trains_as_published(name: str) -> None:
    recipe = load_recipe(name).plain()
    options = recipe["optim"]["generator"]
    wanted = {"type": "adamw", "lr": 1e-4, "weight_decay": 0.05, "clip": 1.0, "lr_schedule": "constant"}
    assert {key: options[key] for key in wanted} == wanted
    assert list(options["betas"]) == [0.9, 0.95]
    assert recipe["engine"]["max_steps"] == 300 * 5004  # epochs of 5004 batches of 256
    assert recipe["data"]["batch_size"] * 8 == 256
    dropouts = ("class_dropout", "token_dropout", "dropout", "ffn_dropout")
    assert {recipe["model"][key] for key in dropouts} == {0.1}
    assert recipe["objective"]["generator"]["tokens"]["label_smoothing"] == 0.0


@pytest.mark.parametrize("name", of_tokens())
def test_tiny_form_trains_is_measured_and_draws(name: str, tmp_path: Path) -> None:
    overrides = ["engine.max_steps=3", "engine.log_every=1", "engine.checkpoint_every=0"]
    result = smalti.train(f"tiny-{name}", overrides, out=tmp_path / "run", quiet=True)
    assert result.finished
    model = smalti.load(tmp_path / "run")
    most = max(math.log2(size) for size in model.codebooks.values())
    assert 0.0 < result.evaluation["bits_per_token"] < most + 0.1
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "train/generator/total" in line)
    assert all(math.isfinite(last[f"train/generator/tokens/{codebook}"]) for codebook in model.codebooks)
    drawn = model.sample(torch.tensor([0, 9]), seeds=[0, 1])
    assert drawn.shape == (2, len(model.codebooks), *model.grid)


def test_tokenizer_of_digits_trains(tmp_path: Path) -> None:
    result = smalti.train("tiny-digits-tokenizer", ["engine.max_steps=20"], out=tmp_path / "run", quiet=True)
    assert result.evaluation["psnr"] > 10.0
    model = smalti.load(tmp_path / "run")
    images = torch.zeros(1, 1, 8, 8)
    assert torch.equal(model.decode_indices(model.encode(images).indices), model.decode(model.encode(images).latent))
