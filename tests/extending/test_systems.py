"""Each system that smalti replaces is a recipe of at most 40 lines; recipes on columns of a user's own data train."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import smalti
from smalti.assembly.recipe import Recipe, load_recipe
from smalti.cli.recipes import recipe_text

HERE = Path(__file__).parent / "recipes"
MOST_LINES = 40

# System -> its recipe, and terms that make it what it is: player, type, weight, every.
SYSTEMS: dict[str, tuple[str | Path, list[tuple[str, str, float, int]]]] = {
    "latent-diffusion, weighted and conditioned": (
        HERE / "vae-kl-weighted.yaml",
        [
            ("generator", "scaled_nll", 1.0, 1),
            ("generator", "kl", 1e-6, 1),
            ("discriminator", "weighted_hinge", 0.5, 1),
        ],
    ),
    "latent-diffusion": ("vae-kl-f8", [("generator", "kl", 1e-6, 1), ("discriminator", "hinge", 0.5, 1)]),
    "taming": ("vqgan-f16", [("generator", "lpips", 1.0, 1), ("generator", "hinge", 0.8, 1)]),
    "FQGAN triple": (
        "fqgan-triple-f16",
        [("generator", "disentangle", 0.1, 1), ("generator", "info_nce", 0.5, 1), ("generator", "commitment", 0.25, 1)],
    ),
    "WGAN": ("wgan", [("generator", "wgan", 1.0, 1), ("discriminator", "wgan", 1.0, 1)]),
    "StyleGAN2": (
        "stylegan2-256",
        [("generator", "path_length", 2.0, 4), ("discriminator", "r1", 5.0, 16)],
    ),
    "VQ-VAE": ("vqvae", [("generator", "commitment", 0.25, 1), ("generator", "codebook", 1.0, 1)]),
}


def found_terms(recipe: Recipe) -> list[tuple[str, str, float, int]]:
    objective = recipe.plain()["objective"]
    return [
        (player, term["type"], term.get("weight", 1.0), term.get("every", 1))
        for player in ("generator", "discriminator")
        for term in objective.get(player, {}).values()
    ]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_is_a_recipe_of_forty_lines(system: str) -> None:
    name, wanted = SYSTEMS[system]
    text = name.read_text() if isinstance(name, Path) else recipe_text(name)
    assert len(text.splitlines()) <= MOST_LINES
    found = found_terms(load_recipe(name))
    assert [term for term in wanted if term not in found] == []


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with images, side folders and a table, which is the current one."""
    for name, mode in (
        ("photos", "RGB"),
        ("edges", "RGB"),
        ("alpha", "L"),
        ("foreground", "RGB"),
        ("background", "RGB"),
    ):
        (tmp_path / name).mkdir()
        for number in range(4):
            picture = Image.radial_gradient("L").rotate(15 * number + len(name)).resize((40, 40)).convert(mode)
            picture.save(tmp_path / name / f"{number}.png")
    rows = "".join(f'{number}.png,{number / 2},"picture, {number}"\n' for number in range(4))
    for table in ("weights.csv", "texts.csv"):
        (tmp_path / table).write_text("file,weight,text\n" + rows)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(recipe: str, *overrides: str) -> list[dict[str, Any]]:
    result = smalti.train(HERE / recipe, overrides, out="run", quiet=True)
    assert result.step == 3
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "warning" not in line]


def test_a_matting_term_trains_on_alpha_foreground_and_background(folder: Path) -> None:
    log = train("matting.yaml")
    last = log[-1]
    assert last["train/generator/composed/raw"] > 0.0
    assert last["train/generator/composed/weighted"] == pytest.approx(0.5 * last["train/generator/composed/raw"])
    assert last["train/generator/gradient_norm"] > 0.0
    assert [line["skipped"] for line in log if "skipped" in line] == []


def test_a_text_term_trains_on_the_text_of_a_table(folder: Path) -> None:
    log = train("text.yaml")
    assert all(0.0 < line["train/generator/text/raw"] < 2.0 for line in log)
    assert log[0]["train/generator/text/raw"] != log[1]["train/generator/text/raw"], "other pictures, other texts"


def test_the_weighted_and_conditioned_autoencoder_trains(folder: Path) -> None:
    lpips = "{type: lpips, weights: random, widths: [4, 4, 8, 8, 8]}"
    small = """
        model.encoder.channels=32 model.decoder.channels=32 discriminator.channels=8 discriminator.layers=1
        data.transform.size=32 data.batch_size=2 data.workers=0 engine.accumulate=1 engine.max_steps=3
        objective.generator.adversarial.start=1 objective.discriminator.adversarial.start=1
        engine.log_every=1 engine.sample_every=0 engine.checkpoint_every=0
    """
    small_lpips = f"objective.generator.nll.distances.lpips.loss.extractor={lpips}"
    log = train("vae-kl-weighted.yaml", *small.split(), small_lpips)
    assert log[-1]["train/generator/adversarial/status"] == "active"
    assert log[-1]["train/generator/adversarial/adaptive"] > 0.0
    assert log[-1]["train/discriminator/adversarial/raw"] > 0.0
