"""A recipe that is accepted can run: finite numbers of 64 bits, sizes that could be allocated, names of one meaning."""

import copy
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
import torch
from pydantic import Field

import smalti
from smalti.assembly.recipe import validate
from smalti.assembly.sections import read_sections
from smalti.config import ConfigError, Document, Validator, build
from smalti.config.document import override, parse
from smalti.config.limits import TAKEN, name_problem, number_problem
from smalti.engine.settings import MOST_REPEATS, parse_cycle
from smalti.losses import Loss
from smalti.models import Model
from smalti.nn.budget import TooLargeError, readable, within_budget
from smalti.nn.meta import on_meta_device
from smalti.registry import UserError
from tests.assembly.mistakes import COLUMNS, VQ, WGAN
from tests.interop.checkpoints import tiny_vq

EMPTY = "objective.generator.pixel"


def refused(recipe: str, change: str) -> dict[str, str]:
    """Place -> message of every problem of a recipe with a change."""

    def read() -> None:
        document = parse(recipe)
        override(document, change)
        validate(document)

    with pytest.raises(ConfigError) as caught:
        read()
    return {problem.place: problem.message for problem in caught.value.problems}


def numbers(value: Any, place: str = "") -> list[tuple[str, float]]:
    """Place and value of every number of a resolved recipe."""
    if isinstance(value, dict):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return [(place, value)] if isinstance(value, (int, float)) and not isinstance(value, bool) else []
    return [found for key, item in items for found in numbers(item, f"{place}.{key}" if place else key)]


@pytest.mark.parametrize("recipe", [VQ, WGAN], ids=["vq", "wgan"])
def test_no_number_of_a_recipe_may_be_infinite_or_beyond_64_bits(recipe: str) -> None:
    """Each of them in turn: the message stands at its place, and nothing is built of it."""
    resolved = validate(parse(recipe)).plain()
    found = numbers(resolved)
    assert len(found) > 30
    for number, (place, value) in enumerate(found):
        both = (float("inf"), float("nan")) if isinstance(value, float) else (2**63, -(10**30))
        for wrong in both[number % 2 :][:1]:
            text = json.dumps(wrong) if isinstance(wrong, int) else (".inf" if wrong > 0 else ".nan")
            document, validator = Document(copy.deepcopy(resolved)), Validator()
            override(document, f"{place}={text}")
            read_sections(document, "x", validator)
            places = [problem.place for problem in validator.problems]
            assert places, (place, wrong)
            assert all(f"{place}.".startswith(f"{found}.") for found in places), (place, places)


@pytest.mark.parametrize(
    ("change", "place", "says"),
    [
        ("optim.generator.lr=.inf", "optim.generator.lr", "expected a finite number"),
        ("optim.generator.lr=1e999", "optim.generator.lr", "expected a finite number"),
        ("optim.generator.lr=-.inf", "optim.generator.lr", "expected a finite number"),
        ("optim.generator.eps=.nan", "optim.generator.eps", "expected a finite number"),
        ("optim.generator.clip=.inf", "optim.generator.clip", "expected a finite number"),
        ("optim.generator.betas=[0.5, .nan]", "optim.generator.betas.1", "expected a finite number"),
        ("objective.generator.pixel.weight=.inf", "objective.generator.pixel.weight", "expected a finite number"),
        ("engine.seed=99999999999999999999", "engine.seed", "64 bits"),
        ("engine.seed=18446744073709551616", "engine.seed", "64 bits"),
        (f"engine.max_steps={'9' * 90}", "engine.max_steps", "64 bits"),
        (f"engine.max_steps={'9' * 400}", "engine.max_steps", "a number of 400 digits"),
        (f"data.workers={'9' * 5000}", "data.workers", "a number of 5,000 digits"),
        ("data.workers=100000", "data.workers", "at most 1,024 processes"),
        ("engine.accumulate=100000000", "engine.accumulate", "at most 100,000"),
        ("model.decoder.z_channels=2147483648", "model.decoder", "1.2 TiB of weights"),
        ("model.decoder.z_channels=4611686018427387904", "model.decoder", "cannot be built"),
        ("model.encoder.channels=68719476736", "model.encoder", "TiB of weights"),
        ("model.encoder.blocks=1000000000", "model.encoder.blocks", "less than or equal to 1000"),
        ("model.encoder.multipliers=" + str([1] * 900), "model.encoder", "layers and tensors"),
        ("model.decoder.middle_blocks=1000000000", "model.decoder.middle_blocks", "less than or equal"),
        (
            "model.bottleneck.codebooks.visual.quantizer.size=1000000000000",
            "model.bottleneck.codebooks.visual.quantizer",
            "TiB of weights",
        ),
        ("discriminator.layers=1000000000", "discriminator.layers", "less than or equal to 16"),
        ("discriminator.channels=1000000000", "discriminator", "sizes=[2000000000, 1000000000, 4, 4]"),
        ("data.batch_size=1000000000", "data.batch_size", "in one batch: expected at most 64.0 GiB"),
        ("data.transform.size=16777216", "data.transform.size", "expected at most 64.0 GiB"),
        ("data.transform.size=[16777216, 1024]", "data.transform.size", "expected at most 64.0 GiB"),
        ("engine.samples=1000000000", "engine.samples", "a picture of"),
    ],
)
def test_what_no_run_can_have_is_refused_with_the_figure(change: str, place: str, says: str) -> None:
    problems = refused(VQ, change)
    assert place in problems
    assert says in problems[place]


NAMES = ["generator", "discriminator", "step", "images", "seconds", "type", "total", "psnr_start"]
NAMES += ["", " ", "a b", "a/b", "../../x", "a.b", "1st", "x" * 65, "new\nline", "-x"]


@pytest.mark.parametrize("name", NAMES)
def test_names_that_mean_something_else_are_refused_wherever_one_is_given(name: str) -> None:
    """Metrics, terms of both players, teachers, codebooks, heads and distances: one function decides."""
    document = parse(COLUMNS)
    full = copy.deepcopy(document.data)
    metric = {"data": full["data"], "metrics": {name: {"type": "psnr"}}}
    places: dict[str, dict[str, Any]] = {
        "validation.metrics": {"validation": metric},
        "objective.generator": {"objective": {"generator": {name: {"type": "mse"}}}},
        "objective.discriminator": {"objective": {"discriminator": {name: {"type": "hinge"}}}},
        "objective.teachers": {"objective": {"teachers": {name: {"type": "clip", "weights": "random"}}}},
        "model.bottleneck.codebooks": {"model": {"bottleneck": {"codebooks": {name: CODEBOOK}}}},
        "model.heads": {"model": {"heads": {name: {"codebook": "look", "width": 4}}}},
    }  # fmt: skip
    for place, change in places.items():
        data = copy.deepcopy(full)
        merge_into(data, change)
        validator = Validator()
        read_sections(Document(data), "x", validator)
        said = [problem.message for problem in validator.problems if problem.place == place]
        assert any("expected a name" in message for message in said), place


CODEBOOK = {"quantizer": {"type": "nearest", "size": 4, "channels": 4}}


def merge_into(target: dict[str, Any], change: dict[str, Any]) -> None:
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            merge_into(target[key], value)
        else:
            target[key] = value


@pytest.mark.parametrize("name", ["pixel", "pixel_2", "clip-b", "_x", "é", "x" * 64, "codebook", "psnr"])
def test_names_of_the_field_are_names(name: str) -> None:
    assert name_problem(name) is None
    assert name not in TAKEN


@pytest.mark.parametrize(
    ("recipe", "change", "place"),
    [
        (VQ, "objective.generator.pixel.inputs={target: prediction}", "objective.generator.pixel.inputs"),
        (VQ, "objective.generator.pixel.inputs={prediction: target}", "objective.generator.pixel.inputs"),
        (VQ, "objective.generator.pixel.inputs={target: fake}", "objective.generator.pixel.inputs"),
        (VQ, "objective.generator.pixel.inputs={prediction: batch.image}", "objective.generator.pixel.inputs"),
        (VQ, "objective.generator.x={type: ssim, inputs: {prediction: real}}", "objective.generator.x.inputs"),
        (
            VQ,
            "objective.generator.x={type: torch.nn.L1Loss, inputs: {input: prediction, target: prediction}}",
            "objective.generator.x.inputs",
        ),
        (COLUMNS, "objective.generator.meaning.inputs={student: heads.meaning, teacher: heads.meaning}",
         "objective.generator.meaning.inputs"),
    ],
)  # fmt: skip
def test_a_thing_measured_against_itself_is_refused(recipe: str, change: str, place: str) -> None:
    assert "both bound to" in refused(recipe, change)[place]


@pytest.mark.parametrize(
    ("recipe", "change", "place"),
    [
        (VQ, "objective.generator.adversarial.adaptive={reference: [pixel, pixel]}",
         "objective.generator.adversarial.adaptive.reference"),
        (VQ, "validation={data: {source: {type: photos}, transform: {size: 16, crop: center}}, metrics: [psnr, psnr]}",
         "validation.metrics"),
        (VQ, "engine.compile=[encoder, encoder]", "engine.compile"),
        (VQ, "data.source.include=[china, china]", "data.source.include"),
        (VQ, "objective.generator.commitment={type: commitment, only: [codebook, codebook]}",
         "objective.generator.commitment.only"),
    ],
)  # fmt: skip
def test_what_stands_twice_in_a_list_of_names_is_refused(recipe: str, change: str, place: str) -> None:
    assert "stands twice" in refused(recipe, change)[place]


@pytest.mark.parametrize(
    "entry",
    [
        "discriminator*100000000", f"discriminator*{'9' * 5000}", "discriminator*0", "discriminator*-1",
        {"phase": "discriminator", "repeat": 10**30}, {"phase": "discriminator", "weight_clip": float("inf")},
        {"phase": "discriminator", "weight_clip": float("nan")}, None, 1, ["discriminator"], 2.5, True, {}, "",
    ],
)  # fmt: skip
def test_an_entry_of_a_cycle_that_is_none_is_said(entry: Any) -> None:
    with pytest.raises(UserError, match=r"cycle\.0"):
        parse_cycle([entry, "generator"], ["generator", "discriminator"])
    assert parse_cycle([f"discriminator*{MOST_REPEATS}", "generator"], ["generator", "discriminator"])


def test_an_annotation_may_declare_that_infinity_is_meant() -> None:
    class Bounded(Loss):
        def __init__(self, *, bound: "Annotated[float, Field(allow_inf_nan=True)]" = 1.0, other: float = 1.0) -> None:
            super().__init__()
            self.bound = bound

    validator = Validator()
    assert validator.call(Bounded, {"bound": float("inf")}, "x") is not None
    assert validator.call(Bounded, {"other": float("inf")}, "x") is None


def test_numbers_of_python_are_looked_at_as_those_of_files_are() -> None:
    """No digits are printed by the thousand, whoever wrote them."""
    config = {"type": "mlp_generator", "image_size": 8, "image_channels": 1, "latent_size": 8, "widths": [16]}
    for option, value in (("latent_size", 10**5000), ("latent_size", -(10**400)), ("widths", [10**400])):
        with pytest.raises(ConfigError, match="64 bits") as caught:
            build({**config, option: value}, Model)
        assert len(str(caught.value)) < 300
    assert number_problem(True) is None
    assert number_problem("text") is None


@pytest.mark.parametrize("seed", [0, 7, 2**62, 2**63 - 1])
def test_any_seed_of_64_bits_builds_a_model(seed: int) -> None:
    once, again = (smalti.build("tiny-vqvae", [f"engine.seed={seed}"]).state_dict() for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_a_network_is_counted_before_it_is_allocated() -> None:
    with on_meta_device(), within_budget(), pytest.raises(TooLargeError, match=r"PiB of weights .* at most 256\.0 GiB"):
        torch.nn.Linear(2**30, 2**20)
    with within_budget(most_parts=5), pytest.raises(TooLargeError, match="more than 5 layers"):
        torch.nn.Sequential(*(torch.nn.Identity() for _ in range(6)))
    with within_budget(most_bytes=64):
        torch.nn.Linear(3, 4)
    torch.nn.Linear(100, 100)  # and nothing is counted outside
    assert readable(256 * 2**30) == "256.0 GiB"


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("bottleneck", "codebook_size"), 2**40),
        (("encoder", "channels"), 2**33),
        (("decoder", "z_channels"), 2**62),
        (("decoder", "blocks"), 10**9),
        (("encoder", "channels"), float("inf")),
        (("encoder", "channels"), 64),
    ],
)
def test_sizes_that_weights_do_not_have_are_refused_before_they_are_allocated(
    place: tuple[str, str], value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_vq().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"][place[0]][place[1]] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(torch.random, "fork_rng", None)  # the real network is built within it: that is never reached
    with pytest.raises(UserError):
        smalti.load(tmp_path)


def test_a_class_that_looks_at_values_while_it_is_built_is_left_to_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import torch\nfrom torch import nn\nclass Looks(nn.Module):\n"
    text += "    def __init__(self):\n        super().__init__()\n        self.x = torch.ones(1).item()\n"
    text += "    def forward(self, prediction, target): return (prediction - target).abs().mean()\n"
    text += "class Fails(nn.Module):\n    def __init__(self):\n        {}['x']\n"
    (tmp_path / "looking.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    document = parse(VQ)
    override(document, "objective.generator.looks={type: looking.Looks}")
    assert "looks" in validate(document).terms["generator"]
    problems = refused(VQ, "objective.generator.fails={type: looking.Fails}")
    assert problems == {"objective.generator.fails": "cannot be built: KeyError: 'x'"}
