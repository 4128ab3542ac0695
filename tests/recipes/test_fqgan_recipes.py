"""The FQGAN recipes hold the numbers of the original's scripts, and the gradient-copy recipe states its own units."""

from typing import Any

import pytest

from smalti.assembly.recipe import load_recipe

CODEBOOKS = {"dual": ["visual", "semantic"], "triple": ["visual", "mid", "high"]}
DISTILLED = {"dual": {"semantic": 0.5}, "triple": {"mid": 0.5, "high": 0.5}}
every_recipe = pytest.mark.parametrize(("kind", "factor"), [(kind, f) for kind in CODEBOOKS for f in (16, 8)])


def plain(kind: str, factor: int) -> dict[str, Any]:
    return load_recipe(f"fqgan-{kind}-f{factor}").plain()


@every_recipe
def test_weights_are_those_of_the_training_script(kind: str, factor: int) -> None:
    objective = plain(kind, factor)["objective"]
    weights = {name: term.get("weight", 1.0) for name, term in objective["generator"].items()}
    assert weights == {
        "mse": 1.0,
        "perceptual": 1.0,
        "codebook": 1.0,
        "commitment": 0.25,
        "entropy": 0.03,
        "disentangle": 0.1,
        **DISTILLED[kind],
        "adversarial": 0.5,
    }
    assert objective["discriminator"]["adversarial"]["weight"] == 0.25
    for phase in ("generator", "discriminator"):
        adversarial = objective[phase]["adversarial"]
        assert (adversarial["type"], adversarial["start"]) == ("hinge", 19_999)
    assert objective["generator"]["entropy"]["temperature"] == 0.01
    assert objective["generator"]["disentangle"]["mode"] == "latent"
    for name in DISTILLED[kind]:
        term = objective["generator"][name]
        assert (term["type"], term["temperature"], term["inputs"]["student"]) == ("info_nce", 1.0, f"heads.{name}")


@every_recipe
def test_codebooks_stand_in_the_order_of_the_originals_latent(kind: str, factor: int) -> None:
    model = plain(kind, factor)["model"]
    codebooks = model["bottleneck"]["codebooks"]
    assert list(codebooks) == CODEBOOKS[kind]
    for options in codebooks.values():
        quantizer = options["quantizer"]
        assert (quantizer["size"], quantizer["channels"], quantizer["normalize"]) == (16384, 8, True)
        assert options["adapter"]["grid"] == 256 // factor
        assert (options["adapter"]["layers"], options["adapter"]["heads"]) == (6, 8)
    assert {head["codebook"] for head in model["heads"].values()} == set(CODEBOOKS[kind][1:])


@every_recipe
def test_teachers_see_what_the_originals_did(kind: str, factor: int) -> None:
    teachers = plain(kind, factor)["objective"]["teachers"]
    assert all(teacher["resize"] == "nearest" and teacher["size"] == 224 for teacher in teachers.values())
    assert teachers["clip"]["normalization"] == "clip"
    names = {"dual": "openai/clip-vit-large-patch14", "triple": "openai/clip-vit-base-patch16"}
    assert teachers["clip"]["model"] == names[kind]
    assert kind == "dual" or teachers["dino"]["variant"] == "small"


@every_recipe
def test_training_is_that_of_the_script(kind: str, factor: int) -> None:
    recipe = plain(kind, factor)
    assert recipe["engine"]["max_steps"] == 40 * (1_281_167 // 256)
    assert 8 * recipe["data"]["batch_size"] == 256
    for phase in ("generator", "discriminator"):
        optim = recipe["optim"][phase]
        assert (optim["lr"], list(optim["betas"]), optim["clip"]) == (2e-4, [0.9, 0.95], 1.0)


def test_gradient_copy_states_its_weights_in_its_own_units() -> None:
    recipe = load_recipe("vqvae-gradient-copy").plain()
    generator = recipe["objective"]["generator"]
    weights = {name: term.get("weight", 1.0) for name, term in generator.items()}
    assert weights == {"l1": 1.0, "commitment": 1.0, "codebook": 0.25}
    assert generator["commitment"]["channels"] == generator["codebook"]["channels"] == "sum"
    quantizer = recipe["model"]["bottleneck"]["codebooks"]["codebook"]["quantizer"]
    assert (quantizer["estimator"], quantizer["codebook_gradient"]) == ("gradient_copy", True)
