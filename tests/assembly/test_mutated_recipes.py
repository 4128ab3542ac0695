"""A table of mistakes planted in good recipes: each is found in one pass, at its place, with a suggestion."""

import subprocess
import sys

import pytest

from smalti.assembly.recipe import load_recipe, shipped, validate
from smalti.config import ConfigError, override
from smalti.config.document import parse
from tests.assembly.mistakes import COLUMNS, GAN, KL, MISTAKES, RIGHT, VQ, WGAN, Mistake


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.set for mistake in MISTAKES])
def test_every_mistake_is_found_at_its_place(mistake: Mistake) -> None:
    document = parse(mistake.recipe, "recipe.yaml")
    override(document, mistake.set)
    with pytest.raises(ConfigError) as caught:
        validate(document)
    found = [problem.message for problem in caught.value.problems if problem.place == mistake.place]
    assert any(mistake.says in message for message in found), caught.value


def test_there_are_enough_of_them_and_all_differ() -> None:
    assert len({(mistake.set, mistake.recipe) for mistake in MISTAKES}) == len(MISTAKES) >= 150


GOOD = {"vq": VQ, "kl": KL, "gan": GAN, "wgan": WGAN, "columns": COLUMNS}


@pytest.mark.parametrize("recipe", GOOD.values(), ids=GOOD)
def test_the_recipes_themselves_pass(recipe: str) -> None:
    assert validate(parse(recipe)).terms["generator"]


@pytest.mark.parametrize(("recipe", "change"), RIGHT, ids=[change for _, change in RIGHT])
def test_what_is_unusual_and_right_is_not_refused(recipe: str, change: str) -> None:
    document = parse(recipe)
    override(document, change)
    validate(document)


def test_mistakes_of_all_kinds_are_found_in_one_pass() -> None:
    document = parse(VQ.replace("batch_size: 4}", "batch_size: 4, batch_size: 8}"), "recipe.yaml")
    planted = [
        "engine.max_steps=0",
        "objective.generator.pixel.wieght=1.0",
        "objective.generator.adversarial.adaptive.reference=[codebook]",
        "objective.generator.kl={type: kl}",
        "data.transform.size=31",
        "validation.monitor=fid",
        "model.encoder.attention_levels=[4]",
        "sead=1",
    ]
    for one in planted:
        override(document, one)
    with pytest.raises(ConfigError) as caught:
        validate(document)
    places = {problem.place: problem.where for problem in caught.value.problems}
    expected = {
        "data.batch_size": "recipe.yaml:19",
        "engine.max_steps": "(--set)",
        "objective.generator.pixel.wieght": "(--set)",
        "objective.generator.adversarial.adaptive": "recipe.yaml:16",
        "validation.monitor": "(--set)",
        "model.encoder": "recipe.yaml:4",
        "sead": "(--set)",
    }
    assert expected.items() <= places.items()


def test_a_duplicate_key_has_both_lines() -> None:
    with pytest.raises(ConfigError, match=r"objective\.generator\.pixel \(recipe\.yaml:13\).*first recipe\.yaml:12"):
        validate(parse(VQ.replace("    perceptual:", "    pixel:"), "recipe.yaml"))


def test_the_tiny_block_is_checked_too() -> None:
    with pytest.raises(ConfigError, match=r"tiny\.engine\.max_step.*did you mean 'max_steps'"):
        validate(parse(VQ + "tiny: {engine: {max_step: 3}}\n"))
    with pytest.raises(ConfigError, match="expected a mapping of overrides"):
        validate(parse(VQ + "tiny: 3\n"))


def test_a_resolved_recipe_reads_as_itself() -> None:
    import yaml

    for text in GOOD.values():
        resolved = validate(parse(text)).plain()
        assert validate(parse(yaml.safe_dump(resolved))).plain() == resolved


@pytest.mark.parametrize("name", [*shipped(), *(f"tiny-{name}" for name in shipped())])
def test_every_shipped_recipe_passes(name: str) -> None:
    assert load_recipe(name).name == name


def test_checking_does_not_import_the_compiler_of_torch() -> None:
    """It would cost more than a second, the time that a check may take."""
    script = (
        "import sys; from tests.assembly.test_mutated_recipes import GAN, VQ, WGAN, load_recipe, parse, validate;"
        "[validate(parse(text)) for text in (VQ, GAN, WGAN)];"
        "[load_recipe(name) for name in ('biggan-32', 'sngan', 'fqgan-dual-f8')];"
        "assert 'torch._dynamo' not in sys.modules and 'torchmetrics' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
