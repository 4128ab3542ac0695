"""A table of mistakes planted in two good recipes: each is found in one pass, at its place, with a suggestion."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from smalti.config import ConfigError, override
from smalti.config.document import parse
from smalti.engine.recipe import load_recipe, shipped, validate

VQ = """
model:
  type: autoencoder
  encoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            out_channels: 8}
  bottleneck: {type: vector_quantizer, in_channels: 8, codebook_size: 16, code_channels: 4, name: visual}
  decoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            latent_channels: 4, z_channels: 8}
discriminator: {type: patch, channels: 8, layers: 2, norm: none}
objective:
  generator:
    pixel: {type: l1}
    perceptual: {type: lpips, extractor: {type: lpips, weights: random}}
    codebook: {type: codebook}
    commitment: {type: commitment, weight: 0.25}
    adversarial: {type: hinge, weight: 0.5, start: 10, adaptive: {reference: [pixel, perceptual]}}
  discriminator:
    adversarial: {type: hinge, weight: 0.5, start: 10}
data: {source: {type: photos, exclude: [chelsea]}, transform: {size: 32, crop: random, flip: true}, batch_size: 4}
optim:
  generator: {type: adam, lr: 1.0e-4, betas: [0.5, 0.9]}
  discriminator: {type: adam, lr: 1.0e-4, betas: [0.5, 0.9]}
validation:
  data: {source: {type: photos, include: [chelsea]}, batch_size: 1}
  every: 10
  metrics: [psnr, ssim]
  monitor: psnr
engine: {max_steps: 20, precision: fp32}
cycle: [generator, discriminator]
"""

KL = """
model:
  type: autoencoder
  encoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            out_channels: 8}
  bottleneck: {type: gaussian, in_channels: 8, latent_channels: 4}
  decoder: {type: conv, channels: 8, multipliers: [1, 2], blocks: 1, middle_attention: false, groups: 4,
            latent_channels: 4, z_channels: 8}
objective:
  generator:
    nll: {type: scaled_nll, distances: {pixel: {loss: {type: l1}}, squared: {loss: {type: mse}, weight: 2.0}}}
    kl: {type: kl, weight: 1.0e-6}
data:
  source: {type: image_folder, path: images, columns: {condition: edges, mask: masks}}
  transform: {size: 32, crop: adm_random}
optim: {generator: {lr: 1.0e-4}}
engine: {max_steps: 20}
"""


@dataclass(frozen=True)
class Mistake:
    """What is set where, and what the report must say."""

    set: str
    place: str
    says: str
    recipe: str = VQ


# fmt: off
MISTAKES = [
    # a word that is not known, with its nearest good spelling
    Mistake("modle={}", "modle", "did you mean 'model'"),
    Mistake("engine.max_step=3", "engine.max_step", "did you mean 'max_steps'"),
    Mistake("engine.sead=3", "engine.sead", "did you mean 'seed'"),
    Mistake("data.batchsize=3", "data.batchsize", "did you mean 'batch_size'"),
    Mistake("data.source.exlude=[]", "data.source.exlude", "did you mean 'exclude'"),
    Mistake("data.transform.filp=true", "data.transform.filp", "did you mean 'flip'"),
    Mistake("optim.generator.learning_rate=1", "optim.generator.learning_rate", "unknown option"),
    Mistake("optim.genrator={}", "optim.genrator", "did you mean 'generator'"),
    Mistake("objective.generater={}", "objective.generater", "did you mean 'generator'"),
    Mistake("objective.generator.pixel.wieght=1.0", "objective.generator.pixel.wieght", "did you mean 'weight'"),
    Mistake("objective.generator.pixel.redution=mean", "objective.generator.pixel.redution",
            "did you mean 'reduction'"),
    Mistake("objective.generator.adversarial.strat=3", "objective.generator.adversarial.strat", "did you mean 'start'"),
    Mistake("objective.generator.adversarial.adaptive.refrence=[pixel]",
            "objective.generator.adversarial.adaptive.refrence", "did you mean 'reference'"),
    Mistake("model.encoder.chanels=8", "model.encoder.chanels", "did you mean 'channels'"),
    Mistake("model.bottleneck.codebok_size=8", "model.bottleneck.codebok_size", "did you mean 'codebook_size'"),
    Mistake("model.encodr={type: conv}", "model.encodr", "did you mean 'encoder'"),
    Mistake("discriminator.layer=3", "discriminator.layer", "did you mean 'layers'"),
    Mistake("validation.evry=3", "validation.evry", "did you mean 'every'"),
    Mistake("validation.data.transfrom={}", "validation.data.transfrom", "did you mean 'transform'"),
    Mistake("objective.generator.nll.distances.pixel.wieght=1", "objective.generator.nll.distances.pixel.wieght",
            "did you mean 'weight'", KL),
    # a class that is not known
    Mistake("model.type=autoencodr", "model.type", "did you mean 'autoencoder'"),
    Mistake("model.encoder.type=conv2", "model.encoder.type", "did you mean 'conv'"),
    Mistake("model.bottleneck.type=vector_quantiser", "model.bottleneck.type", "did you mean 'vector_quantizer'"),
    Mistake("discriminator.type=pacth", "discriminator.type", "did you mean 'patch'"),
    Mistake("objective.generator.pixel.type=l11", "objective.generator.pixel.type", "did you mean 'l1'"),
    Mistake("objective.generator.pixel.type=my_pkg.losses.L1", "objective.generator.pixel.type", "cannot import"),
    Mistake("objective.generator.pixel.type=smalti.losses.mse.MES", "objective.generator.pixel.type",
            "did you mean 'MSE'"),
    Mistake("data.source.type=photo", "data.source.type", "did you mean 'photos'"),
    Mistake("validation.metrics=[psrn]", "validation.metrics.psrn.type", "did you mean 'psnr'"),
    Mistake("objective.teachers={t: {type: vgg}}", "objective.teachers.t.type", "did you mean 'vgg1"),
    Mistake("objective.generator.nll.distances.pixel.loss.type=l_1",
            "objective.generator.nll.distances.pixel.loss.type", "did you mean 'l1'", KL),
    # a type that is missing, or not a mapping where one belongs
    Mistake("objective.generator.pixel={weight: 1.0}", "objective.generator.pixel", "needs 'type'"),
    Mistake("objective.generator.pixel={tpye: l1}", "objective.generator.pixel", "instead of 'tpye'"),
    Mistake("objective.generator.pixel=l1", "objective.generator.pixel", "expected a term"),
    Mistake("model.encoder=conv", "model.encoder", "expected an encoder"),
    Mistake("objective=3", "objective", "expected a mapping"),
    Mistake("objective.generator={}", "objective.generator", "expected a mapping of term names"),
    Mistake("cycle=generator", "cycle", "expected a list"),
    # a value of the wrong type; nothing is coerced
    Mistake("engine.max_steps='20'", "engine.max_steps", "expected a valid integer"),
    Mistake("engine.max_steps=1.5", "engine.max_steps", "integer"),
    Mistake("engine.seed=true", "engine.seed", "integer"),
    Mistake("data.transform.flip=1", "data.transform.flip", "boolean"),
    Mistake("optim.generator.lr='1e-4'", "optim.generator.lr", "number"),
    Mistake("optim.generator.betas=0.5", "optim.generator.betas", "expected a list"),
    Mistake("optim.generator.betas=[0.5]", "optim.generator.betas", "expected 2 values"),
    Mistake("objective.generator.pixel.weight=lots", "objective.generator.pixel.weight", "number"),
    Mistake("objective.generator.adversarial.adaptive=true", "objective.generator.adversarial.adaptive", "mapping"),
    Mistake("model.encoder.multipliers=2", "model.encoder.multipliers", "list"),
    Mistake("data.source.exclude=chelsea", "data.source.exclude", "list"),
    # out of range, or not among the choices
    Mistake("engine.max_steps=0", "engine.max_steps", "greater than or equal to 1"),
    Mistake("engine.precision=fp16", "engine.precision", "bf16 has the range of fp32"),
    Mistake("engine.precision=bf17", "engine.precision", "did you mean 'bf16'"),
    Mistake("optim.generator.lr=-1.0", "optim.generator.lr", "greater than 0"),
    Mistake("optim.generator.betas=[0.5, 1.0]", "optim.generator.betas.1", "less than 1"),
    Mistake("optim.generator.lr_schedule=cos", "optim.generator.lr_schedule", "'cosine'"),
    Mistake("data.batch_size=0", "data.batch_size", "greater than or equal to 1"),
    Mistake("data.transform.crop=centre", "data.transform.crop", "did you mean 'center'"),
    Mistake("objective.generator.pixel.start=-1", "objective.generator.pixel.start", "greater than or equal to 0"),
    Mistake("objective.generator.pixel.every=0", "objective.generator.pixel.every", "greater than or equal to 1"),
    Mistake("objective.generator.pixel.reduction=avg", "objective.generator.pixel.reduction", "'mean'"),
    Mistake("objective.generator.pixel.role=watch", "objective.generator.pixel.role", "'log'"),
    Mistake("model.bottleneck.codebook_size=0", "model.bottleneck.codebook_size", "greater than or equal to 1"),
    Mistake("model.encoder.norm=layer", "model.encoder.norm", "'group', 'batch' or 'none'"),
    Mistake("discriminator.norm=bacth", "discriminator.norm", "did you mean 'batch'"),
    Mistake("objective.generator.nll.likelihood=laplacian", "objective.generator.nll.likelihood", "'laplace'", KL),
    # something that must be there is not
    Mistake("model.bottleneck={type: vector_quantizer, codebook_size: 4, code_channels: 4}",
            "model.bottleneck.in_channels", "missing option"),
    Mistake("objective.generator.adversarial.adaptive={eps: 0.1}",
            "objective.generator.adversarial.adaptive.reference", "missing option"),
    Mistake("engine={seed: 1}", "engine.max_steps", "missing option"),
    Mistake("data={batch_size: 4}", "data.source", "missing option"),
    Mistake("objective={discriminator: {a: {type: hinge}}}", "objective.generator", "missing phase"),
    Mistake("optim={generator: {lr: 1.0}}", "optim.discriminator", "has no optimizer"),
    Mistake("optim.discriminator={lr: 1.0e-4}", "optim.discriminator", "nothing to optimise", KL),
    Mistake("objective.discriminator={a: {type: hinge}}", "discriminator", "missing section", KL),
    # a graph that cannot be
    Mistake("model.decoder.latent_channels=5", "model", "decoder.latent_channels=5: expected"),
    Mistake("model.encoder.out_channels=6", "model", "expected encoder.out_channels=6"),
    Mistake("model.encoder.multipliers=[1, 2, 2]", "model", "decoder.factor=2: expected encoder.factor=4"),
    Mistake("model.encoder.attention_levels=[4]", "model.encoder", "attention_levels=[4]"),
    Mistake("model.encoder.groups=3", "model.encoder", "groups"),
    Mistake("data.transform.size=31", "data.transform.size", "divisible by the model's factor 2"),
    Mistake("data.transform={}", "data.transform", "one size"),
    Mistake("data.transform.size=8", "data.transform.size", "the discriminator needs at least 12"),
    Mistake("discriminator.in_channels=1", "discriminator.in_channels", "expected 3"),
    Mistake("discriminator.condition_channels=2", "discriminator.condition_channels", "no column 'condition'"),
    Mistake("data.source={type: image_folder, path: x, image_channels: 1}", "data.source", "images with 1 channels"),
    Mistake("cycle=[generator]", "cycle", "discriminator phase has terms and never moves"),
    Mistake("cycle=[generator, generator, discriminator]", "cycle", "exactly one generator"),
    Mistake("cycle=[generator, discriminater]", "cycle", "did you mean 'discriminator'"),
    Mistake("validation.monitor=fid", "validation.monitor", "not among the metrics"),
    Mistake("objective.generator.adversarial.adaptive.reference=[pixle]", "objective.generator.adversarial.adaptive",
            "did you mean 'pixel'"),
    Mistake("objective.generator.adversarial.adaptive.reference=[adversarial]",
            "objective.generator.adversarial.adaptive", "the term itself"),
    Mistake("objective.generator.adversarial.adaptive.reference=[codebook]", "objective.generator.adversarial.adaptive",
            "no gradient at the judged image"),
    Mistake("objective.generator.pixel.adaptive={reference: [perceptual]}", "objective.generator.pixel.adaptive",
            "does not listen to the discriminator"),
    Mistake("objective.discriminator.adversarial.adaptive={reference: [pixel]}",
            "objective.discriminator.adversarial.adaptive", "belongs to the generator's phase"),
    Mistake("objective.generator.nll.distances={}", "objective.generator.nll", "at least one distance", KL),
    # a name that is not there, or not in this phase
    Mistake("objective.generator.pixel.inputs={target: batch.imge}", "objective.generator.pixel.inputs.target",
            "did you mean 'image'"),
    Mistake("objective.generator.pixel.inputs={tagret: target}", "objective.generator.pixel.inputs.tagret",
            "did you mean 'target'"),
    Mistake("objective.generator.pixel.inputs={prediction: reconstrction}",
            "objective.generator.pixel.inputs.prediction", "did you mean 'reconstruction'"),
    Mistake("objective.generator.pixel.inputs={weight: batch.maks}", "objective.generator.pixel.inputs.weight",
            "no column 'maks'"),
    Mistake("objective.generator.kl={type: kl}", "objective.generator.kl.inputs", "'posterior' is not provided"),
    Mistake("objective.generator.codebook={type: codebook}", "objective.generator.codebook.inputs",
            "'codebooks' is not provided", KL),
    Mistake("objective.generator.pixel.inputs={prediction: codebooks.semantic.z}",
            "objective.generator.pixel.inputs.prediction", "codebooks.semantic.z"),
    Mistake("objective.generator.feature={type: mse, inputs: {target: teacher.clip}}",
            "objective.generator.feature.inputs.target", "teachers is empty"),
    Mistake("objective.generator.adversarial={type: hinge}", "objective.generator.adversarial.inputs",
            "needs a discriminator", KL),
    Mistake("objective.discriminator.extra={type: commitment}", "objective.discriminator.extra.inputs",
            "only in the generator phase"),
]
# fmt: on


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.set for mistake in MISTAKES])
def test_every_mistake_is_found_at_its_place(mistake: Mistake) -> None:
    document = parse(mistake.recipe, "recipe.yaml")
    override(document, mistake.set)
    with pytest.raises(ConfigError) as caught:
        validate(document)
    found = {problem.place: problem.message for problem in caught.value.problems}
    assert mistake.place in found, caught.value
    assert mistake.says in found[mistake.place], caught.value


def test_there_are_enough_of_them_and_all_differ() -> None:
    assert len({(mistake.set, mistake.recipe) for mistake in MISTAKES}) == len(MISTAKES) >= 60


@pytest.mark.parametrize("recipe", [VQ, KL], ids=["vq", "kl"])
def test_the_recipes_themselves_pass(recipe: str) -> None:
    assert validate(parse(recipe)).plain()["model"]["type"] == "autoencoder"


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

    for text in (VQ, KL):
        resolved = validate(parse(text)).plain()
        assert validate(parse(yaml.safe_dump(resolved))).plain() == resolved


@pytest.mark.parametrize("name", [*shipped(), *(f"tiny-{name}" for name in shipped())])
def test_every_shipped_recipe_passes(name: str) -> None:
    assert load_recipe(name).name == name


def test_checking_does_not_import_the_compiler_of_torch() -> None:
    """It would cost more than a second, the time that a check may take."""
    script = (
        "import sys; from tests.engine.test_mutated_recipes import VQ, parse, validate; validate(parse(VQ));"
        "assert 'torch._dynamo' not in sys.modules and 'torchmetrics' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
