"""Whole objectives of FQGAN and LlamaGen around the start of the discriminator."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smalti.discriminators.patch import Patch
from smalti.extractors import lpips as features
from smalti.losses.hinge import HingeDiscriminator, HingeGenerator
from smalti.losses.l1 import L1
from smalti.losses.lpips import LPIPS
from smalti.losses.mse import MSE
from smalti.losses.vanilla import VanillaDiscriminator
from smalti.objectives import Adaptive, Clock, DiscriminatorPhase, GeneratorPhase, Term

START = 10
CASES = {
    "single_l2_aw": (1, MSE, True, HingeDiscriminator),
    "single_l1": (1, L1, False, VanillaDiscriminator),
    "dual_l2_aw": (2, MSE, True, HingeDiscriminator),
    "dual_l2": (2, MSE, False, HingeDiscriminator),
    "triple_l2": (3, MSE, False, HingeDiscriminator),
}


@dataclass(frozen=True, kw_only=True)
class StubOutput:
    """What the goldens' stand-in model returns: images, and code losses as plain numbers."""

    reconstruction: Tensor
    codes: Tensor


class Stub(nn.Module):
    """reconstruction = tanh(conv(h, w))."""

    judged = "reconstruction"

    def __init__(self, tensors: Mapping[str, Tensor], codebooks: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(tensors["w"].clone())
        disentangle = 0.006 if codebooks > 1 else 0.0
        self.codes = tensors["cb"][:codebooks, :3].sum() + disentangle
        self.made: Tensor | None = None

    @property
    def last_layer(self) -> nn.Parameter:
        return self.weight

    def training_forward(self, batch: Mapping[str, Any]) -> StubOutput:
        self.made = torch.tanh(nn.functional.conv2d(batch["h"], self.weight, padding=1))
        return StubOutput(reconstruction=self.made, codes=self.codes)


def phases_of(
    case: str, tensors: Mapping[str, Tensor], lpips: Mapping[str, Tensor], folder: Path
) -> tuple[GeneratorPhase, DiscriminatorPhase]:
    codebooks, pixel, adaptive, critic_loss = CASES[case]
    path = folder / "lpips.safetensors"
    save_file({key.removeprefix("model."): v for key, v in lpips.items() if key.startswith("model.")}, path)
    extractor = features.LPIPS(weights=str(path), widths=(8, 8, 16, 16, 16))
    critic = Patch(channels=8, layers=2)
    critic.load_state_dict({key.removeprefix("disc."): v for key, v in tensors.items() if key.startswith("disc.")})
    options = Adaptive(reference=["pixel", "perceptual"]) if adaptive else None
    terms = [
        Term(name="pixel", loss=pixel()),
        Term(name="perceptual", loss=LPIPS(extractor=extractor)),
        Term(name="gan", loss=HingeGenerator(), weight=0.5, start=START, adaptive=options),
        Term(name="codes", loss=lambda codes: codes),
    ]
    model = Stub(tensors, codebooks)
    generator = GeneratorPhase(model, terms, discriminator=critic)
    # the originals put disc_weight 0.5 in front of half of the sum
    terms_d = [Term(name="gan", loss=critic_loss(), weight=0.25, start=START)]
    return generator, DiscriminatorPhase(critic, terms_d, model=model)


def left_by_the_balance(
    generator: GeneratorPhase, discriminator: DiscriminatorPhase, images: Tensor, batch: Mapping[str, Tensor]
) -> Tensor:
    """grad nll + grad g at the images: what ``grad_rec`` has too much with an adaptive weight.

    It was collected with ``retain_grad``, which adds up whatever ``autograd.grad`` sends through the images.
    """
    images = images.detach().requires_grad_(True)
    losses = [generator.losses[name](images, batch["image"]) for name in ("pixel", "perceptual")]
    adversarial = -copy.deepcopy(discriminator.network)(images).logits.mean()
    (gradient,) = torch.autograd.grad(sum(losses) + adversarial, images)
    return gradient


@pytest.mark.parametrize("step", [9, 10, 11])
@pytest.mark.parametrize("case", CASES)
def test_objective_equals_the_originals(case: str, step: int, golden: Callable[[str], Any], tmp_path: Path) -> None:
    tensors = golden("fqgan/vqloss.safetensors")
    generator, discriminator = phases_of(case, tensors, golden("fqgan/lpips_small.safetensors"), tmp_path)
    batch = {"image": tensors["input"], "h": tensors["h"]}
    expected = {key.split(".")[-1]: v for key, v in tensors.items() if key.startswith(f"{case}.step{step}.")}
    surrogate, report = generator(batch, Clock(step, step))
    (at_images,) = torch.autograd.grad(surrogate, generator.network.made, retain_graph=True)
    surrogate.backward()
    torch.testing.assert_close(report.fake, tensors["recon"], rtol=0, atol=1e-6)
    torch.testing.assert_close(report.total, expected["g_total"], rtol=2e-5, atol=0)
    torch.testing.assert_close(generator.model.last_layer.grad, expected["grad_w"], rtol=1e-4, atol=2e-6)
    extra = left_by_the_balance(generator, discriminator, report.fake, batch) if CASES[case][2] else 0.0
    torch.testing.assert_close(at_images, expected["grad_rec"] - extra, rtol=1e-4, atol=1e-6)
    pixel = "rec_l1" if case == "single_l1" else "rec_l2"
    torch.testing.assert_close(report.terms["pixel"].raw, tensors[pixel], rtol=1e-5, atol=0)
    torch.testing.assert_close(report.terms["perceptual"].raw, tensors["lpips"], rtol=2e-5, atol=0)
    if step < START:
        assert not discriminator.is_active(Clock(step, step))
        assert expected["d_total"] == 0.0
        assert report.terms["gan"].status == "waiting"
        return
    torch.testing.assert_close(report.terms["gan"].raw, tensors["g_adv"], rtol=1e-4, atol=1e-7)
    if CASES[case][2]:
        torch.testing.assert_close(report.measures["gan/adaptive"], tensors["adaptive"], rtol=1e-4, atol=0)
    # the goldens run each pass on a fresh copy of the critic
    fresh = phases_of(case, tensors, golden("fqgan/lpips_small.safetensors"), tmp_path)[1]
    loss, found = fresh(batch, Clock(step, step), fake=report.fake)
    torch.testing.assert_close(found.total, expected["d_total"], rtol=2e-5, atol=0)
    loss.backward()
    assert all(p.grad is not None for p in fresh.parameters())


def test_the_factor_is_the_ratio_of_the_recorded_norms(golden: Callable[[str], Any], tmp_path: Path) -> None:
    tensors = golden("fqgan/vqloss.safetensors")
    generator, _ = phases_of("single_l2_aw", tensors, golden("fqgan/lpips_small.safetensors"), tmp_path)
    batch = {"image": tensors["input"], "h": tensors["h"]}
    measures = generator(batch, Clock(START, START), measure=True)[1].measures
    torch.testing.assert_close(measures["gradient_norm/reconstruction"], tensors["grad_nll_norm"], rtol=1e-4, atol=0)
    pull = 0.5 * tensors["adaptive"] * tensors["grad_g_norm"]
    torch.testing.assert_close(measures["gradient_norm/adversarial"], pull, rtol=1e-4, atol=0)
