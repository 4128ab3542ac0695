"""From recipe to gradient: every discriminator loss x generator loss x l1 / mse x adaptive weight on / off."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smalti.assembly.assemble import build_model, build_phases
from smalti.assembly.recipe import validate
from smalti.config import Document
from smalti.objectives import Clock, Phase

ADVERSARIES = ("hinge", "vanilla", "non_saturating", "lsgan", "wgan")
NOW = Clock(3, 3)


def recipe_of(critic: str, adversary: str, pixel: str, adaptive: bool) -> dict[str, Any]:
    gan: dict[str, Any] = {"type": adversary, "weight": 0.5, "start": 3}
    if adaptive:
        gan["adaptive"] = {"reference": ["pixel"]}
    stem = {"type": "conv", "patch_size": 4, "channels": 32, "multipliers": [1], "blocks": 1, "middle_attention": False}
    quantizer = {"type": "nearest", "size": 8, "channels": 4}
    return {
        "model": {
            "type": "autoencoder",
            "encoder": {**stem, "out_channels": 8},
            "bottleneck": {"type": "tokens", "in_channels": 8, "codebooks": {"codebook": {"quantizer": quantizer}}},
            "decoder": {**stem, "latent_channels": 4, "z_channels": 8},
        },
        "discriminator": {"type": "patch", "channels": 4, "layers": 1},
        "objective": {
            "generator": {
                "pixel": {"type": pixel, "weight": 2.0},
                "codebook": {"type": "codebook"},
                "commitment": {"type": "commitment", "weight": 0.25},
                "gan": gan,
            },
            "discriminator": {"gan": {"type": critic, "weight": 0.5}},
        },
        "data": {"source": {"type": "photos"}, "transform": {"size": 16, "crop": "random"}},
        "optim": {"generator": {}, "discriminator": {}},
        "engine": {"max_steps": 5},
    }


def textbook(phase: Phase, critic: nn.Module, batch: dict[str, Tensor], adaptive: bool) -> Tensor:
    output = phase.model.training_forward(batch)
    context = {
        "prediction": output.reconstruction,
        "target": batch["image"],
        "codebooks": output.bottleneck.codebooks,
        "logits_fake": critic(output.reconstruction).logits,
    }
    losses = {term.name: term(context).total for term in phase.terms}
    factor = torch.ones(())
    if adaptive:
        (a,) = torch.autograd.grad(2.0 * losses["pixel"], phase.model.last_layer, retain_graph=True)
        (b,) = torch.autograd.grad(losses["gan"], phase.model.last_layer, retain_graph=True)
        factor = (a.norm() / (b.norm() + 1e-4)).clamp(0.0, 1e4)
    total = 2.0 * losses["pixel"] + losses["codebook"] + 0.25 * losses["commitment"] + 0.5 * factor * losses["gan"]
    assert isinstance(total, Tensor)
    return total


def slopes(network: nn.Module, loss: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    return [torch.zeros(()) if slope is None else slope for slope in found]


def assert_equal(network: nn.Module, ours: Tensor, theirs: Tensor) -> None:
    expected = slopes(network, theirs)
    scale = max(float(slope.norm()) for slope in expected)
    assert scale > 0.0
    for slope, wanted in zip(slopes(network, ours), expected, strict=True):
        assert torch.isfinite(slope).all()
        assert float((slope - wanted).norm()) <= 1e-12 * scale


@pytest.mark.parametrize("adversary", ADVERSARIES)
@pytest.mark.parametrize("critic_loss", ADVERSARIES)
def test_a_recipe_gives_textbook_gradients_to_both_players(critic_loss: str, adversary: str) -> None:
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64) * 2 - 1
    for pixel in ("l1", "mse"):
        for adaptive in (True, False):
            recipe = validate(Document(recipe_of(critic_loss, adversary, pixel, adaptive)))
            phases = build_phases(recipe, build_model(recipe))
            generator, discriminator = (phases[player].double() for player in ("generator", "discriminator"))
            critic, batch = discriminator.network, {"image": images}
            surrogate, report = generator(batch, NOW)
            assert_equal(generator.network, surrogate, textbook(generator, critic, batch, adaptive))
            assert report.terms["gan"].status == "active"
            assert ("gan/adaptive" in report.measures) is adaptive
            loss, judged = discriminator(batch, NOW, fake=report.fake)
            real, fake = critic(images).logits, critic(report.fake).logits
            expected = 0.5 * discriminator.terms[0](logits_real=real, logits_fake=fake).total
            assert_equal(critic, loss, expected)
            assert torch.allclose(judged.total, expected)
