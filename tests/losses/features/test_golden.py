"""Every case of the golden group ``feature``: MMagic's feature losses on tiny stand-in networks, and ours beside them.

The goldens' images are in [0, 1] and ours in [-1, 1]. Theirs are normalised with ImageNet's mean and deviation as if
they were in [0, 1]; their ``norm_img`` takes them as [-1, 1] without saying so, and so halves their contrast.
"""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from smalti.extractors import Extractor, TextImageExtractor
from smalti.extractors._images import area_resize
from smalti.extractors._vgg import VGGTrunk
from smalti.extractors._weights import fill
from smalti.extractors.arcface import face_of
from smalti.losses.clip import clip
from smalti.losses.face_id import FaceId
from smalti.losses.light_cnn import LightCNN
from smalti.losses.perceptual import Perceptual
from smalti.losses.style import Style
from smalti.losses.transferal_perceptual import transferal_perceptual
from tests.conftest import GOLDEN

CASES = json.loads((GOLDEN / "losses/manifest.json").read_text())["feature"]
LAYERS = {"1": "relu1_1", "2": "conv1_2", "3": "relu1_2", "6": "relu2_1", "7": "conv2_2", "9": "pool2", "10": "conv3_1"}
# Cases that smalti does not offer: id -> "not offered: ...".
NOT_OFFERED: dict[str, str] = {}
# Cases whose number is a defect: id -> reason. Tested for the difference.
DEFECTS = dict.fromkeys(
    ("transferal.att.l1", "transferal.att.mse"),
    "only the first level's attention goes through the sigmoid; ours does at every level",
)
# What the stand-in networks leave out of the real ones, which tests/extractors checks: CLIP's normalisation.


class Trunk(Extractor):
    """The goldens' stand-in: two blocks of VGG and one convolution, of any layers."""

    def __init__(self, tensors, prefix, layers, normalize=True):
        super().__init__()
        self.trunk = VGGTrunk((2, 2, 1), (8, 16, 16), layers)
        given = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        fill(self.trunk.named_weights(), {f"features.{key}": value for key, value in given.items()}, prefix)
        if not normalize:  # images reach the first layer as they are
            self.trunk.shift.zero_()
            self.trunk.scale.fill_(1.0)

    def forward(self, images):
        return self.trunk(images)


class Faces(Extractor):
    """The goldens' stand-in for IR-SE50: one convolution and the mean over positions, after the cut of the face."""

    def __init__(self, weight, bias):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 16, stride=16)
        self.convolution.load_state_dict({"weight": weight, "bias": bias})

    def forward(self, images):
        return (F.normalize(self.convolution(face_of((images + 1.0) / 2.0)).mean(dim=(2, 3)), dim=1),)


class Pictures(TextImageExtractor):
    """The goldens' stand-in for CLIP: a linear map of 28 x 28 pixels; the texts are given as vectors."""

    def __init__(self, weight, texts):
        super().__init__()
        self.weight, self.texts = weight, texts

    def forward(self, images):
        return (F.normalize(area_resize((images + 1.0) / 2.0, 28, 28).flatten(1) @ self.weight, dim=1),)

    def embed_text(self, texts):
        return F.normalize(self.texts[: len(texts)], dim=1)


def images(tensors, name="pred", other="target", unit=True):
    """Prediction and target as the losses take them, and the leaf that the golden gradient belongs to."""
    leaf = tensors[f"input/{name}"].requires_grad_()
    target = tensors[f"input/{other}"]
    return (2.0 * leaf - 1.0, 2.0 * target - 1.0, leaf) if unit else (leaf, target, leaf)


def vgg_losses(options, tensors):
    """PerceptualLoss is two losses in one; ours are two terms, each with its own weight and layers."""
    unit = options.get("use_input_norm", True) and not options.get("norm_img", True)
    prediction, target, leaf = images(tensors, unit=unit)
    pairs = (
        (Perceptual, options.get("perceptual_weight", 1.0), options["layer_weights"]),
        (Style, options.get("style_weight", 1.0), options.get("layer_weights_style") or options["layer_weights"]),
    )
    total = 0.0
    for cls, share, weights in pairs:
        if share > 0.0:
            trunk = Trunk(tensors, "trunk/", [LAYERS[key] for key in weights], options.get("use_input_norm", True))
            criterion = options.get("criterion", "l1")
            loss = cls(extractor=trunk, layer_weights=tuple(weights.values()), criterion=criterion)
            total = total + share * loss(prediction, target)
    return total, {"pred": leaf}


def light_cnn(options, tensors):
    prediction, target, leaf = images(tensors, unit=False)
    trunk = Trunk(tensors, "trunk77/", ["conv3_1"], normalize=False)
    return LightCNN(extractor=trunk, criterion=options["criterion"])(prediction, target), {"pred": leaf}


def face_id(options, tensors):
    prediction, target, leaf = images(tensors, "face_pred", "face_gt")
    return FaceId(extractor=Faces(tensors["face/w"], tensors["face/b"]))(prediction, target), {"pred": leaf}


def pictures(options, tensors):
    leaf = tensors["input/clip_image"].requires_grad_()
    network = Pictures(tensors["clip/w"], tensors["input/clip_text"])
    matrix = clip(2.0 * leaf - 1.0, ["", "", ""], extractor=network, pairs="all", reduction="none")
    return matrix[:, :, 0, 0], {"image": leaf}


def transferal(options, tensors):
    maps = [tensors[f"input/map{k}"].requires_grad_() for k in range(3)]
    textures = [tensors[f"input/texture{k}"] for k in range(3)]
    attention = tensors["input/soft_attention"] if options["use_attention"] else None
    value = transferal_perceptual(maps, textures, attention, criterion=options["criterion"])
    return value, {f"map{k}": map_ for k, map_ in enumerate(maps)}


CALLS = {
    "PerceptualLoss": vgg_losses,
    "LightCNNFeatureLoss": light_cnn,
    "FaceIdLoss/ArcFace plumbing": face_id,
    "CLIPLossModel": pictures,
    "TransferalPerceptualLoss": transferal,
}


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_OFFERED | DEFECTS])
def test_equals_the_original_with_its_gradient(golden, double, name):
    tensors, options = double(golden("losses/feature.safetensors")), CASES[name]["options"]
    value, given = CALLS[options["cls"]](options, tensors)
    value = options.get("loss_weight", 1.0) * value
    torch.testing.assert_close(value, tensors[f"case/{name}/out"], rtol=1e-5, atol=1e-7)
    assert {key.rsplit("/", 1)[1] for key in tensors if key.startswith(f"case/{name}/grad/")} == set(given)
    for wrt, slope in zip(given, torch.autograd.grad(value.sum(), list(given.values())), strict=True):
        expected = tensors[f"case/{name}/grad/{wrt}"]
        # Where terms of opposite sign cancel, what is left is rounding of the size of the terms.
        torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6 * expected.abs().max().item())


def test_perceptual_and_style_parts_are_the_original_s(golden):
    tensors = golden("losses/feature.safetensors")
    options = CASES["both.own_style_layers"]["options"]
    for part, alone in (("percep", {"style_weight": 0.0}), ("style", {"perceptual_weight": 0.0})):
        value, _ = vgg_losses({**options, **alone}, dict(tensors))
        torch.testing.assert_close(value, tensors[f"case/both.own_style_layers/{part}"], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", DEFECTS)
def test_attention_is_between_0_and_1_at_every_level(golden, name):
    tensors, options = golden("losses/feature.safetensors"), CASES[name]["options"]
    expected = tensors[f"case/{name}/out"]
    value, _ = transferal(options, tensors)
    assert (0.01 * value - expected).abs() > 0.05 * expected.abs(), DEFECTS[name]
    # The original's number, by its own rule: sigmoid at level 0, then the raw attention, resized.
    raw, total = tensors["input/soft_attention"], 0.0
    for k in range(3):
        a = torch.sigmoid(raw) if k == 0 else F.interpolate(raw, scale_factor=2**k, mode="bicubic")
        difference = a * (tensors[f"input/map{k}"] - tensors[f"input/texture{k}"])
        total = total + (difference.abs() if options["criterion"] == "l1" else difference.square()).mean()
    torch.testing.assert_close(0.01 * total, expected, rtol=1e-5, atol=1e-7)


def test_no_case_is_left_out(golden):
    stored = {key.split("/")[1] for key in golden("losses/feature.safetensors") if key.startswith("case/")}
    assert stored == set(CASES)
    assert len(CASES) == 15
    assert set(NOT_OFFERED) | set(DEFECTS) <= set(CASES)
    assert all(options["options"]["cls"] in CALLS for options in CASES.values())
