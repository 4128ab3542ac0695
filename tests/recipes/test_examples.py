"""The example of three codebooks runs, and the combinations of its extra terms can be had from the command line."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

import smalti
from smalti.assembly.recipe import load_recipe

EXAMPLE = Path(__file__).parents[2] / "examples" / "three_codebooks.py"
TERMS = {"disentangle": ["disentangle"], "distillation": ["mid", "high"]}


def test_the_example_writes_each_codebook_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = [EXAMPLE.name, str(tmp_path / "run"), "--steps", "1", "--size", "32"]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    with Image.open(tmp_path / "run" / "alone.png") as picture:
        assert picture.width >= 5 * 32, "photo, reconstruction and three codebooks stand side by side"
        strips = [picture.crop((n * picture.width // 5, 0, (n + 1) * picture.width // 5, 32)) for n in range(5)]
    assert len({strip.tobytes() for strip in strips}) == 5


@pytest.mark.parametrize("off", [[], ["disentangle"], ["distillation"], ["disentangle", "distillation"]])
def test_null_takes_terms_out_of_a_recipe(off: list[str]) -> None:
    gone = [term for name in off for term in TERMS[name]]
    recipe = load_recipe("tiny-fqgan-triple-f8", [f"objective.generator.{term}=null" for term in gone])
    assert set(recipe.terms["generator"]) == set(load_recipe("fqgan-triple-f8").terms["generator"]) - set(gone)


def test_without_its_terms_heads_and_teachers_it_trains_and_is_measured(tmp_path: Path) -> None:
    gone = [f"objective.generator.{term}" for terms in TERMS.values() for term in terms]
    off = [f"{place}=null" for place in (*gone, "objective.teachers", "model.heads", "discriminator")]
    off += ["objective.generator.adversarial=null", "objective.discriminator=null", "optim.discriminator=null"]
    smalti.train("tiny-fqgan-triple-f8", ["engine.max_steps=1", *off], out=tmp_path / "run", quiet=True)
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert {key.split("/")[2] for key in line if key.startswith("train/generator/") and key.endswith("/raw")} == {
        "mse",
        "perceptual",
        "codebook",
        "entropy",
        "commitment",
    }
    assert not smalti.load(tmp_path / "run").heads
    assert "psnr" in json.loads((tmp_path / "run" / "evaluation.json").read_text())
