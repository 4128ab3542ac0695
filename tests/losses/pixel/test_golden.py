"""Every case of the golden group ``pixel``: numbers of MMagic's losses, made by running them, and ours beside them.

The goldens' images are in [0, 1] and ours in [-1, 1]; only PSNR asks for the range.
"""

import json

import pytest
import torch

from smalti.losses.charbonnier import Charbonnier
from smalti.losses.charbonnier_composition import CharbonnierComposition
from smalti.losses.gradient import Gradient
from smalti.losses.l1 import L1
from smalti.losses.l1_composition import L1Composition
from smalti.losses.masked_tv import MaskedTV
from smalti.losses.mse import MSE
from smalti.losses.mse_composition import MSEComposition
from smalti.losses.psnr import PSNR
from smalti.losses.tv import TV
from tests.conftest import GOLDEN

CASES = json.loads((GOLDEN / "losses/manifest.json").read_text())["pixel"]
COMPARISONS = {"L1Loss": L1, "MSELoss": MSE, "CharbonnierLoss": Charbonnier}
COMPOSITIONS = {
    "L1CompositionLoss": L1Composition,
    "MSECompositionLoss": MSEComposition,
    "CharbonnierCompLoss": CharbonnierComposition,
}
# Cases that smalti does not offer: id -> "not offered: ..."; every other case must be computed below.
NOT_OFFERED: dict[str, str] = {}


def reductions(options):
    """Their names of our three options; ``loss_weight`` is no option of ours and multiplies outside."""
    return {"reduction": options.get("reduction", "mean"), "per_sample": options.get("sample_wise", False)}


def comparison(options, inputs):
    eps = {"eps": options["eps"]} if "eps" in options else {}
    prediction = inputs["target"].detach().clone() if options.get("pred") == "target" else inputs["pred"]
    prediction.requires_grad_()
    loss = COMPARISONS[options["cls"]](**reductions(options), **eps)
    return loss(prediction, inputs["target"], inputs.get(options.get("weight"))), prediction


def composition(options, inputs):
    loss = COMPOSITIONS[options["cls"]](**reductions(options))
    alpha = inputs["alpha"].requires_grad_()
    weight = inputs.get(options["weight"])
    return loss(alpha, inputs["fg"], inputs["bg"], inputs[options["ori_merged"]], weight), alpha


def gradient(options, inputs):
    prediction = inputs["pred"][:, :1].requires_grad_()
    weight = inputs.get(options["weight"])
    return Gradient(**reductions(options))(prediction, inputs["target"][:, :1], weight), prediction


def masked_tv(options, inputs):
    prediction = inputs["pred"].requires_grad_()
    return MaskedTV()(prediction, inputs[options["mask"]]), prediction


def psnr(options, inputs):
    prediction = inputs["pred"].requires_grad_()
    return PSNR()(2.0 * prediction - 1.0, 2.0 * inputs["target"] - 1.0), prediction


def tv(options, inputs):
    prediction = inputs["pred"].requires_grad_()
    return TV(reduction="none")(prediction).flatten(1).mean(dim=1), prediction


CALLS = {
    **dict.fromkeys(COMPARISONS, comparison),
    **dict.fromkeys(COMPOSITIONS, composition),
    "GradientLoss": gradient,
    "MaskedTVLoss": masked_tv,
    "PSNRLoss": psnr,
    "tv_loss (L2 TV, per sample)": tv,
}


def call_of(name):
    options = CASES[name]["options"]
    return CALLS[options.get("cls") or options["fn"]]


@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_OFFERED])
def test_equals_the_original_with_its_gradient(golden, name):
    tensors = golden("losses/pixel.safetensors")
    inputs = {key.removeprefix("input/"): value for key, value in tensors.items() if key.startswith("input/")}
    options = CASES[name]["options"]
    value, leaf = call_of(name)(options, inputs)
    value = options.get("loss_weight", 1.0) * value
    torch.testing.assert_close(value, tensors[f"case/{name}/out"], rtol=1e-5, atol=1e-7)
    wrt = "alpha" if leaf is inputs["alpha"] else "pred"
    (slope,) = torch.autograd.grad(value.sum(), [leaf])
    expected = tensors[f"case/{name}/grad/{wrt}"]
    # Where terms of opposite sign cancel, what is left is rounding of the size of the terms.
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-7 * max(1.0, expected.abs().max().item()))


def test_no_case_is_left_out(golden):
    stored = {key.split("/")[1] for key in golden("losses/pixel.safetensors") if key.startswith("case/")}
    assert stored == set(CASES)
    assert len(CASES) == 91
    assert set(NOT_OFFERED) <= set(CASES)
    assert all(name in NOT_OFFERED or call_of(name) for name in CASES)
    gradients = {key.rsplit("/", 1)[0] for key in golden("losses/pixel.safetensors") if "/grad/" in key}
    assert len(gradients) == len(CASES)
