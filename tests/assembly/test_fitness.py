"""Images that the networks which look at them cannot take are found with the recipe, not in a step."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import smalti
from smalti.assembly.recipe import validate
from smalti.config import ConfigError
from smalti.config.document import parse
from smalti.extractors import Extractor
from smalti.extractors import lpips as features
from smalti.losses import Loss
from smalti.losses.lpips import LPIPS
from smalti.metrics import Observation
from smalti.metrics import lpips as metrics_lpips
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError
from tests.contracts.examples import TINY_LPIPS

RECIPE = """
model:
  type: autoencoder
  encoder: {type: conv, image_channels: CHANNELS, channels: 8, multipliers: [1], blocks: 1, middle_blocks: 0,
            middle_attention: false, groups: 4, patch_size: 4, out_channels: 8}
  bottleneck: {type: gaussian, in_channels: 8, latent_channels: 4}
  decoder: {type: conv, image_channels: CHANNELS, latent_channels: 4, z_channels: 4, channels: 8, multipliers: [1],
            blocks: 1, middle_blocks: 0, middle_attention: false, groups: 4, patch_size: 4}
objective:
  teachers: {TEACHERS}
  generator:
    pixel: {type: l1}
    TERM
data: {source: {type: image_folder, path: images, image_channels: CHANNELS},
       transform: {size: 16, crop: center}, batch_size: 2}
validation: {data: {source: {type: image_folder, path: held_out, image_channels: CHANNELS}}, metrics: {METRICS}}
optim: {generator: {}}
engine: {max_steps: 2}
"""
SMALL = "weights: random, widths: [4, 4, 8, 8, 8]"
NETWORKS = {
    "lpips": f"{{type: lpips, {SMALL}}}",
    "vgg16": f"{{type: vgg16, {SMALL}}}",
    "vgg19": f"{{type: vgg19, {SMALL}}}",
    "clip": "{type: clip, weights: random}",
    "arcface": "{type: arcface, weights: random, widths: [4, 4, 8, 8], blocks: [1, 1, 1, 1]}",
    "light_cnn": "{type: light_cnn, weights: random}",
    "dinov2": "{type: dinov2, variant: tiny, weights: random}",
    "vision_transformer": "{type: vision_transformer, weights: random, config: {model_type: vit}}",
}
TERMS = {
    "lpips": f"{{type: lpips, extractor: {NETWORKS['lpips']}",
    "perceptual": f"{{type: perceptual, extractor: {NETWORKS['vgg19']}",
    "style": f"{{type: style, extractor: {NETWORKS['vgg16']}",
    "face_id": f"{{type: face_id, extractor: {NETWORKS['arcface']}",
    "light_cnn": f"{{type: light_cnn, extractor: {NETWORKS['light_cnn']}",
    "clip": f"{{type: clip, inputs: {{text: batch.text}}, extractor: {NETWORKS['clip']}",
}


def text(channels: int = 3, term: str = "", teachers: str = "", metrics: str = "") -> str:
    """The recipe; a name that ends in a brace is left open for further options."""
    filled = RECIPE.replace("CHANNELS", str(channels)).replace("TERM", f"looked: {term}" if term else "")
    filled = filled.replace("TEACHERS", teachers).replace("METRICS", metrics)
    if "batch.text" in term:
        filled = filled.replace("path: images,", "path: images, table: a.csv,").replace(
            "path: held_out,", "path: held_out, table: a.csv,"
        )
    if channels not in {1, 3, 4}:
        filled = filled.replace("{type: image_folder,", "{type: tests.assembly.test_fitness.Many,")
        filled = filled.replace(", table: a.csv", "")
    return filled


class Many:
    """A source from elsewhere with any number of channels."""

    def __init__(self, path: str, image_channels: int) -> None:
        self.path, self.image_channels = path, image_channels

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {}


def problems(recipe: str, *changes: tuple[str, str]) -> dict[str, str]:
    for before, after in changes:
        assert before in recipe
        recipe = recipe.replace(before, after)
    try:
        validate(parse(recipe))
    except ConfigError as error:
        return {problem.place: problem.message for problem in error.problems}
    return {}


# --- channels


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("channels", [2, 4, 5])
def test_a_term_whose_network_looks_at_other_channels_is_named(name: str, channels: int) -> None:
    found = problems(text(channels, f"{TERMS[name]}}}"))
    assert list(found) == ["objective.generator.looked"]
    assert f"it looks at 1 or 3 channels, not at {channels}: choose some with channels" in found.popitem()[1]
    if channels != 4:
        return
    for right in ("[0, 1, 0]", "[1, 1, 1]", "[1]"):
        assert not problems(text(channels, f"{TERMS[name]}, channels: {right}}}"))
    last = problems(text(channels, f"{TERMS[name]}, channels: [0, 1, {channels}]}}"))
    assert f"channels=[0, 1, {channels}]: the images have {channels} channels" in last["objective.generator.looked"]
    assert problems(text(channels, f"{TERMS[name]}, channels: [0, 1]}}")).keys() == {"objective.generator.looked"}


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_grey_and_colour_are_seen_as_they_are(name: str, channels: int) -> None:
    assert not problems(text(channels, f"{TERMS[name]}}}"))
    assert not problems(text(channels, f"{TERMS[name]}, channels: [0, 0, 0]}}"))


@pytest.mark.parametrize("value", ["[]", "[-1, 0, 1]", "3", "[0.5]", "all"])
def test_channels_are_numbers(value: str) -> None:
    found = problems(text(4, f"{TERMS['lpips']}, channels: {value}}}"))
    assert any(place.startswith("objective.generator.looked") for place in found)


@pytest.mark.parametrize("name", NETWORKS)
def test_teachers_choose_channels_too(name: str) -> None:
    found = problems(text(4, teachers=f"seer: {NETWORKS[name]}"))
    assert list(found) == ["objective.teachers.seer"]
    assert "it looks at 1 or 3 channels, not at 4" in found["objective.teachers.seer"]
    chosen = NETWORKS[name].rstrip("}") + ("}" if name == "vision_transformer" else "")
    assert not problems(text(4, teachers=f"seer: {chosen}, channels: [0, 1, 2]}}"))


def test_networks_inside_of_a_likelihood_and_of_metrics_are_found() -> None:
    distances = f"distances: {{near: {{loss: {TERMS['lpips']}"
    assert problems(text(4, f"{{type: scaled_nll, {distances}}}}}}}}}")).keys() == {"objective.generator.looked"}
    assert not problems(text(4, f"{{type: scaled_nll, {distances}, channels: [0, 1, 2]}}}}}}}}"))
    assert problems(text(4, metrics=f"far: {TERMS['lpips']}}}")).keys() == {"validation.metrics.far"}
    assert not problems(text(4, metrics=f"far: {TERMS['lpips']}, channels: [2, 1, 0]}}"))


def test_a_network_from_elsewhere_says_what_it_takes() -> None:
    place = "tests.assembly.test_fitness"
    term = f"{{type: {place}.OwnLoss, extractor: {{type: {place}.Spectral}}}}"
    assert not problems(text(4, term))
    found = problems(text(3, term))
    assert "it looks at 4 channels, not at 3" in found["objective.generator.looked"]
    small = problems(text(4, term), ("size: 16", "size: 8"))
    assert "8 x 8 pixels: it needs at least 12 x 12" in small["objective.generator.looked"]


class Spectral(Extractor):
    """A network that takes four channels."""

    image_channels = (4,)
    smallest_size = 12

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (images,)


class OwnLoss(Loss):
    """A loss with a network."""

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return (self.extractor(prediction)[0] - self.extractor(target)[0]).square().mean()


def test_what_is_seen_is_what_was_chosen() -> None:
    images, others = (torch.rand(2, 4, 16, 16) * 2 - 1 for _ in range(2))
    network = features.LPIPS(**TINY_LPIPS)
    chosen, plain = LPIPS(extractor=network, channels=[2, 1, 3]), LPIPS(extractor=network)
    expected = plain(images[:, [2, 1, 3]], others[:, [2, 1, 3]])
    assert torch.equal(chosen(images, others), expected)
    assert torch.equal(LPIPS(extractor=features.LPIPS(**TINY_LPIPS, channels=[2, 1, 3]))(images, others), expected)
    observation = Observation(
        target=others, reconstruction=images, bottleneck=BottleneckOutput(latent=images), codebook_sizes={}
    )
    measured = metrics_lpips.LPIPS(network, channels=[2, 1, 3]).per_image(observation)["lpips_random"].mean()
    assert torch.allclose(measured, expected)
    grey = images[:, :1]
    seen = LPIPS(extractor=network, channels=[0, 0, 0])(grey, others[:, :1])
    assert torch.allclose(seen, plain(grey, others[:, :1]))
    with pytest.raises(ValueError, match="no channel 3"):
        chosen(images[:, :3], others[:, :3])


# --- sizes


@pytest.mark.parametrize("name", ["lpips", "perceptual", "style"])
def test_a_crop_too_small_for_a_network_is_found(name: str) -> None:
    found = problems(text(3, f"{TERMS[name]}}}"), ("size: 16", "size: 12"))
    assert "images of 12 x 12 pixels: it needs at least 16 x 16" in found["objective.generator.looked"]
    wide = problems(text(3, f"{TERMS[name]}}}"), ("size: 16", "size: [12, 64]"))
    assert "images of 12 x 64 pixels" in wide["objective.generator.looked"]


@pytest.mark.parametrize("name", ["clip", "light_cnn", "face_id"])
def test_networks_that_resize_take_any_size(name: str) -> None:
    assert not problems(text(3, f"{TERMS[name]}}}"), ("size: 16", "size: 4"))


def test_fewer_layers_need_fewer_pixels() -> None:
    shallow = f"{{type: perceptual, layer_weights: [1.0], extractor: {{type: vgg16, {SMALL}, layers: [relu3_1]}}}}"
    assert not problems(text(3, shallow), ("size: 16", "size: 4"))
    assert not features.LPIPS(**TINY_LPIPS).objection((3, 16, 16))


def test_a_teacher_and_held_out_crops_are_checked_too() -> None:
    teacher = problems(text(3, teachers=f"seer: {NETWORKS['vgg16']}"), ("size: 16", "size: 12"))
    assert "12 x 12 pixels: it needs at least 16 x 16" in teacher["objective.teachers.seer"]
    held_out = ("image_channels: 3}}", "image_channels: 3}, transform: {size: 12, crop: center}}")
    for term in (f"{TERMS['lpips']}}}", "{type: ms_ssim, scale_weights: [0.5, 0.5], window: 7, border: valid}"):
        found = problems(text(3, term), held_out)
        assert "12 x 12 pixels: objective.generator.looked needs" in found["validation.data.transform.size"]
    metric = problems(text(3, metrics=f"far: {TERMS['lpips']}}}"), held_out)
    assert "12 x 12 pixels: it needs at least 16" in metric["validation.metrics.far"]
    tiny = (held_out[0], held_out[1].replace("12", "4"))
    near = problems(text(3, metrics="near: {type: ssim}"), tiny)
    assert "4 x 4 pixels: it needs at least 6 x 6" in near["validation.metrics.near"]


# --- held-out images of which some do not fit


def folder(path: Path, *sides: int) -> Path:
    path.mkdir()
    for number, side in enumerate(sides):
        Image.radial_gradient("L").resize((side, side)).convert("RGB").save(path / f"{number}.png")
    return path


def train(tmp_path: Path, term: str, metrics: str, sides: tuple[int, ...], *overrides: str) -> dict[str, Any]:
    images, held_out = folder(tmp_path / "images", 16, 20), folder(tmp_path / "held_out", *sides)
    filled = text(3, term, metrics=metrics).replace("path: images", f"path: {images}")
    (tmp_path / "recipe.yaml").write_text(filled.replace("path: held_out", f"path: {held_out}"))
    smalti.train(tmp_path / "recipe.yaml", ["validation.every=1", *overrides], out=tmp_path / "run", quiet=True)
    found: dict[str, Any] = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    return found


METRICS = f"psnr: {{type: psnr}}, ssim: {{type: ssim}}, far: {TERMS['lpips']}}}"


def test_held_out_images_that_do_not_fit_are_left_out_and_counted_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "smalti"):
        found = train(tmp_path, f"{TERMS['lpips']}}}", METRICS, (20, 12, 4, 16), "validation.monitor=far_random")
    lines = sorted(record.message for record in caplog.records if record.message.startswith("validation"))
    assert lines == [
        "validation: far: 2 of 4 images are left out, it needs at least 16 x 16 pixels",
        "validation: objective: 2 of 4 images are left out, it needs at least 16 x 16 pixels once cropped to "
        "multiples of 4",
        "validation: ssim: 1 of 4 images are left out, it needs at least 6 x 6 pixels",
    ]
    assert {"psnr", "ssim", "far_random"} <= set(found)
    assert "generator/total" in found["objective"]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("monitor", "said"),
    [
        ("far_random", "not measured: 2 of 2 images are left out, it needs at least 16 x 16 pixels"),
        ("generator/total", "not measured: 2 of 2 images are left out, it needs at least 16 x 16 pixels once cropped"),
        ("ssim", "not measured: 2 of 2 images are left out, it needs at least 6 x 6 pixels"),
    ],
)
def test_a_monitor_that_no_image_fits_says_why(tmp_path: Path, monitor: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        train(tmp_path, f"{TERMS['lpips']}}}", METRICS, (4, 5), f"validation.monitor={monitor}")
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_what_nobody_monitors_may_stay_unmeasured(tmp_path: Path) -> None:
    found = train(tmp_path, f"{TERMS['lpips']}}}", METRICS, (4, 5), "validation.monitor=psnr")
    assert {"psnr"} <= set(found)
    assert not {"ssim", "far_random"} & set(found)


# --- a batch of one


class Pooled(nn.Module):
    """A model from elsewhere that normalises one vector for each image."""

    judged = "images"

    def __init__(self, norm: str = "batch") -> None:
        super().__init__()
        kinds = {"batch": nn.BatchNorm1d, "instance": nn.InstanceNorm2d, "sync": nn.SyncBatchNorm}
        shape = (1,) if norm == "batch" else (1, 1)
        self.body = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.Unflatten(1, (4, *shape)))
        self.norm = nn.Sequential(nn.Flatten(1) if norm == "batch" else nn.Identity(), kinds[norm](4))
        self.out = nn.Linear(4, 3)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.out.weight

    def training_forward(self, batch: Any) -> Any:
        return self.out(self.norm(self.body(batch["image"])).flatten(1))


OWN = "model: {type: tests.assembly.test_fitness.Pooled, norm: NORM}"
GAN = """
model: {type: mlp_generator, image_size: 8, image_channels: 1, latent_size: 4, widths: [8, 8], num_classes: 10}
discriminator: {type: mlp, image_size: 8, in_channels: 1, widths: [8], num_classes: 10}
objective: {generator: {adversarial: {type: hinge}}, discriminator: {adversarial: {type: hinge}}}
data: {source: {type: digits}, transform: {size: 8, crop: center}, batch_size: 1}
optim: {generator: {}, discriminator: {}}
engine: {max_steps: 2}
"""


def own(norm: str) -> str:
    return OWN.replace("NORM", norm) + "\nobjective" + text().partition("\nobjective")[2]


@pytest.mark.parametrize("norm", ["batch", "sync"])
def test_a_batch_of_one_through_a_normalisation_of_single_positions_is_found(norm: str) -> None:
    found = problems(own(norm), ("batch_size: 2", "batch_size: 1"))
    assert "1: model.norm.1" in found["data.batch_size"]
    assert "data.batch_size" not in problems(own(norm))


def test_a_normalisation_of_each_image_needs_more_than_one_position() -> None:
    found = problems(own("instance"))
    assert "model.norm.1 (InstanceNorm2d) has a single position" in found["data.transform.size"]


def test_a_batch_of_one_is_found_in_generators_and_in_autoencoders() -> None:
    found = problems(GAN)
    assert found.keys() == {"data.batch_size"}
    assert "1: model.main.3 (BatchNorm1d) has one value for each channel" in found["data.batch_size"]
    assert not problems(GAN, ("widths: [8, 8],", "widths: [8, 8], norm: none,"))
    assert not problems(GAN, ("batch_size: 1", "batch_size: 2"))


def test_a_batch_of_one_with_many_positions_is_right() -> None:
    normalised = "discriminator: {type: patch, channels: 4, layers: 2, norm: batch}\noptim: {discriminator: {},"
    recipe = (
        text()
        .replace("optim: {", normalised)
        .replace("  generator:\n", "  discriminator: {a: {type: hinge}}\n  generator:\n")
    )
    assert not problems(recipe, ("batch_size: 2", "batch_size: 1"))
