"""Shipped GAN recipes: the tiny form of each trains, and the presets hold the numbers of the papers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import smalti
from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.engine.settings import compare_recipes
from smalti.models._generator import Generator
from smalti.models._saved import SavedModel
from smalti.registry import UserError

RECIPES = (
    "biggan-32",
    "dcgan",
    "lsgan",
    "r3gan",
    "sngan",
    "stylegan2-256",
    "stylegan2-64",
    "wgan",
    "wgan-digits",
    "wgan-gp",
)


def plain(name: str) -> dict[str, Any]:
    return load_recipe(name).plain()


@pytest.mark.parametrize("name", RECIPES)
def test_tiny_form_trains_pictures_and_can_be_loaded(name: str, tmp_path: Path) -> None:
    overrides = ["engine.max_steps=2", "engine.log_every=1", "engine.sample_every=2", "engine.samples=4"]
    result = smalti.train(f"tiny-{name}", overrides, out=tmp_path / "run", quiet=True)
    assert result.step == 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = next(line for line in reversed(lines) if "train/generator/total" in line)
    for phase in ("generator", "discriminator"):
        assert math.isfinite(last[f"train/{phase}/total"])
        assert last[f"train/{phase}/skipped_steps"] == 0
    assert (tmp_path / "run" / "samples" / "00000002.png").is_file()
    model = SavedModel.from_pretrained(tmp_path / "run" / "model")
    assert isinstance(model, Generator)
    labels = torch.zeros(2, dtype=torch.int64) if model.num_classes else None
    assert model.sample(torch.zeros(2, model.latent_size), labels).shape == (2, 1, *model.image_size)


def test_stylegan2_256_reports_the_effective_weights_of_the_paper(tmp_path: Path) -> None:
    trainer = assemble(load_recipe("tiny-stylegan2-256"), tmp_path / "run", quiet=True)
    trainer._prepare_to_train()
    reports = {turn.phase: turn.reports[0] for turn in trainer.run_cycle()}
    assert reports["discriminator"].terms["r1"].weight == 80.0
    assert reports["generator"].terms["path_length"].weight == 8.0
    rates = {name: player.optimizer.param_groups[0] for name, player in trainer.players.items()}
    assert rates["generator"]["lr"] == pytest.approx(2e-3 * 4 / 5)
    assert rates["discriminator"]["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))


def test_stylegan2_256_is_the_published_network() -> None:
    with torch.device("meta"):
        specs = load_recipe("stylegan2-256").specs
        model, critic = specs["model"].build(), specs["discriminator"].build()
    # config F at 256 pixels, as PyTorch ports count it; noise maps and filters are no parameters
    assert sum(p.numel() for p in model.parameters()) == 30_034_338
    assert sum(p.numel() for p in critic.parameters()) == 28_864_129
    assert model.num_layers == 14


def test_wgan_presets_hold_the_numbers_of_the_papers() -> None:
    clip, penalty = plain("wgan"), plain("wgan-gp")
    assert clip["cycle"][0] == {"phase": "discriminator", "repeat": 5, "weight_clip": 0.01}
    for phase in ("generator", "discriminator"):
        assert (clip["optim"][phase]["type"], clip["optim"][phase]["lr"]) == ("rmsprop", 5e-5)
        assert (penalty["optim"][phase]["lr"], list(penalty["optim"][phase]["betas"])) == (1e-4, [0.0, 0.9])
    assert penalty["objective"]["discriminator"]["penalty"]["weight"] == 10
    assert penalty["discriminator"]["norm"] != "batch"


def test_wgan_digits_measures_where_it_starts_where_it_ends_and_where_the_floor_is(tmp_path: Path) -> None:
    overrides = ["engine.max_steps=30", "validation.every=0", "engine.sample_every=0"]
    result = smalti.train("tiny-wgan-digits", overrides, out=tmp_path / "run", quiet=True)
    found = result.evaluation
    assert found["sliced_wasserstein_floor"] < found["sliced_wasserstein"] < found["sliced_wasserstein_start"]
    assert found["sliced_wasserstein_floor"] == found["sliced_wasserstein_floor_start"]


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("tiny-sngan", ["discriminator.num_classes=7"], "the model has 10"),
        ("tiny-wgan", ["model.image_size=32"], "model.image_size is 32 x 32"),
        ("tiny-dcgan", ["data.transform.size=32"], "32 x 32 pixels"),
        (
            "biggan-32",
            ["data.source.table=null"],
            r"no column 'label' to give it; data\.source\.table names a CSV file",
        ),
    ],
)
def test_what_does_not_fit_is_said_when_the_recipe_is_read(name: str, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(name, overrides)


def test_a_folder_in_place_of_the_data_takes_a_table_beside_it(tmp_path: Path) -> None:
    read = load_recipe("biggan-32", ["data.source.table=labels.csv"], data=tmp_path)
    source = read.plain()["data"]["source"]
    assert (source["type"], source["path"], source["table"]) == ("image_folder", str(tmp_path), "labels.csv")
    with pytest.raises(UserError, match="no column 'label'"):
        load_recipe("biggan-32", data=tmp_path)  # the recipe's own table is of other images
    with pytest.raises(UserError, match=r"data\.source\.part"):
        load_recipe("tiny-wgan", ["data.source.part=held_out"], data=tmp_path)


def test_reuse_is_part_of_what_a_resumed_run_must_not_change() -> None:
    stored, new = plain("wgan"), plain("wgan")
    new["cycle"][1] = {"phase": "generator", "reuse": True}
    assert compare_recipes(stored, new)


@pytest.mark.parametrize("name", ["wgan-digits", "stylegan2-64"])
def test_resumed_run_equals_the_uninterrupted_one(name: str, tmp_path: Path) -> None:
    """Moments of RMSprop, the mean of w, averages, noise, lazy terms and diagnostics all go on where they were."""
    fixed = ["engine.log_every=1", "engine.sample_every=0", "engine.checkpoint_every=2", "validation=null"]
    fixed += [f"optim.{player}.lr_schedule=constant" for player in ("generator", "discriminator")]
    smalti.train(f"tiny-{name}", [*fixed, "engine.max_steps=5"], out=tmp_path / "straight", quiet=True)
    smalti.train(f"tiny-{name}", [*fixed, "engine.max_steps=2"], out=tmp_path / "resumed", quiet=True)
    smalti.train(f"tiny-{name}", [*fixed, "engine.max_steps=5"], out=tmp_path / "resumed", resume=True, quiet=True)
    timed = {"seconds", "images_per_second", "eta_seconds", "data_wait", "memory"}

    def left_behind(run: str) -> tuple[bytes, list[dict[str, Any]]]:
        lines = (tmp_path / run / "metrics.jsonl").read_text().splitlines()
        log = [{key: value for key, value in json.loads(line).items() if key not in timed} for line in lines]
        return (tmp_path / run / "model" / "model.safetensors").read_bytes(), log

    assert left_behind("straight") == left_behind("resumed")
