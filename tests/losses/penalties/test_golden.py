"""All 28 gradient penalty cases and the 5 path length cases: values, and critic weights through double backward."""

from collections.abc import Callable
from functools import partial
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from smalti.losses.dragan import dragan
from smalti.losses.gradient_penalty import GradientPenalty, gradient_penalty
from smalti.losses.lipschitz_penalty import lipschitz_penalty
from smalti.losses.path_length import PathLength, path_length, path_lengths
from smalti.losses.r1 import R1, r1
from smalti.losses.r2 import r2
from smalti.losses.relativistic import relativistic_discriminator
from smalti.losses.wgan_div import wgan_div
from smalti.losses.zero_centered_penalty import zero_centered_penalty
from smalti.objectives import Clock, Term
from smalti.outputs import DiscriminatorOutput
from tests.losses.originals import EXACT, TinyCritic

NORMS = {"pixel": "pixel", "HWC": "sample"}
Penalty = Callable[[TinyCritic, SimpleNamespace], Tensor]


def interpolated(penalty, critic, x, **options) -> Tensor:
    return penalty(critic, x.real, x.fake, x.alpha, **options)


def r3gan(critic, x) -> Tensor:
    adversarial = relativistic_discriminator(critic(x.real).logits, critic(x.fake).logits)
    return adversarial + 0.5 * 2.0 * (r1(critic, x.real) + r2(critic, x.fake))


def eight_times(critic) -> Callable[[Tensor], DiscriminatorOutput]:
    return lambda images: DiscriminatorOutput(logits=8.0 * critic(images).logits)


def masked_cases() -> dict[str, Penalty]:
    cases: dict[str, Penalty] = {}
    for kind, mode, mask in product(("scalar", "patch"), NORMS, ("nomask", "mask")):

        def gp(critic, x, mode=mode, mask=mask):
            return interpolated(gradient_penalty, critic, x, mask=x.mask if mask == "mask" else None, norm=NORMS[mode])

        def at_real(critic, x, mode=mode, mask=mask):
            return r1(critic, x.real, x.mask if mask == "mask" else None, norm=NORMS[mode])

        cases[f"gp.{kind}.{mode}.{mask}"], cases[f"r1.{kind}.{mode}.{mask}"] = gp, at_real
    return cases


ALL = masked_cases() | {
    "GradientPenaltyLoss.w10": lambda critic, x: 10.0 * interpolated(GradientPenalty(norm="pixel"), critic, x),
    "GradientPenaltyLossComps.w10.HWC": lambda critic, x: 10.0 * interpolated(GradientPenalty(), critic, x),
    "ptgan.gp": partial(interpolated, gradient_penalty),
    "ptgan.dragan": lambda critic, x: 10.0 * dragan(critic, x.real, x.dragan_alpha, x.dragan_noise, norm="pixel"),
    "ptgan.wgan_div": lambda critic, x: wgan_div(critic, x.real, x.fake),
    "r3gan.D": r3gan,
    "zero_centred_gp.interp": partial(interpolated, zero_centered_penalty),
    "lp.interp.8x": lambda critic, x: interpolated(lipschitz_penalty, eight_times(critic), x),
}
# a masked mean over pixels counts what lies outside the mask as slope 0, a miss of 1 each: a constant, no gradient
OFF_BY_A_CONSTANT = {"gp.scalar.pixel.mask", "gp.patch.pixel.mask"}
EQUAL = {name: penalty for name, penalty in ALL.items() if name not in OFF_BY_A_CONSTANT}
LAZY = {f"R1Comps.interval16.iter{i}": i for i in (0, 1, 15, 16)}


@pytest.fixture
def tensors(golden, double):
    return double(golden("losses/gradient_penalty.safetensors"))


def inputs(tensors) -> SimpleNamespace:
    return SimpleNamespace(**{k.removeprefix("input/"): t for k, t in tensors.items() if k.startswith("input/")})


def critic_of(name: str, tensors) -> TinyCritic:
    return TinyCritic(tensors, "patch" if ".patch." in name else "scalar")


def test_no_case_is_left_out(golden):
    groups = [set(EQUAL), OFF_BY_A_CONSTANT, set(LAZY)]
    assert set().union(*groups) == set(golden("losses/manifest.json")["gradient_penalty"])
    assert sum(map(len, groups)) == 28


@pytest.mark.parametrize("name", EQUAL)
def test_equals_the_original_and_trains_the_critic_alike(tensors, name):
    critic = critic_of(name, tensors)
    value = EQUAL[name](critic, inputs(tensors))
    torch.testing.assert_close(value, tensors[f"case/{name}/out"], **EXACT)
    critic.check_gradients(value, name, tensors)


@pytest.mark.parametrize("name", sorted(OFF_BY_A_CONSTANT))
def test_masked_pixels_are_left_out_of_the_mean(tensors, name):
    critic, x = critic_of(name, tensors), inputs(tensors)
    value = ALL[name](critic, x)
    constant = (1.0 - x.mask).mean() / x.mask.mean()
    torch.testing.assert_close(value + constant, tensors[f"case/{name}/out"], **EXACT)
    critic.check_gradients(value, name, tensors)


@pytest.mark.parametrize(("name", "iteration"), LAZY.items())
def test_lazy_r1_is_due_at_the_originals_iterations(tensors, name, iteration):
    # MMagic's weight 80 holds the interval already: lazy_scale false
    term = Term(name="r1", loss=R1(), weight=80.0, every=16, lazy_scale=False)
    clock = Clock(step=iteration, updates=iteration)
    if f"case/{name}/out" not in tensors:
        assert not term.is_due(clock)
        return
    value = term(discriminator=critic_of(name, tensors), real=tensors["input/real"]).total
    torch.testing.assert_close(term.at(clock) * value, tensors[f"case/{name}/out"], **EXACT)


def test_parts_of_r3gan(tensors):
    critic, x = critic_of("r3gan.D", tensors), inputs(tensors)
    for name, penalty, images in (("r1", r1, x.real), ("r2", r2, x.fake)):
        torch.testing.assert_close(penalty(critic, images, reduction="none"), tensors[f"case/r3gan.D/{name}"], **EXACT)


# --- path length ----------------------------------------------------------------------------------------------------
STEPS = [f"step{i}" for i in range(4)]


def generator_of(tensors) -> tuple[Callable[[Tensor], Tensor], dict[str, Tensor]]:
    weights = {name: tensors[f"gen/{name}"].clone().requires_grad_() for name in ("a", "b")}

    def generate(latents: Tensor) -> Tensor:
        hidden = torch.einsum("nlc,lcd->nd", latents, weights["a"]).tanh()
        return (hidden @ weights["b"]).reshape(-1, 3, 4, 4)

    return generate, weights


def test_path_length_over_four_steps_with_its_running_mean(golden):
    tensors = golden("losses/path_length.safetensors")
    generate, weights = generator_of(tensors)
    loss, latents = PathLength(), tensors["input/latents"]
    for name in STEPS:
        case = f"case/{name}"
        noise = tensors[f"{case}/noise_unscaled"]
        lengths = path_lengths(generate, latents, noise)
        torch.testing.assert_close(lengths, tensors[f"{case}/path_lengths"], **EXACT)
        value = loss(generate, latents, noise)
        torch.testing.assert_close(value.total, tensors[f"{case}/out"], **EXACT)
        for key, gradient in zip(weights, torch.autograd.grad(value.total, list(weights.values())), strict=True):
            torch.testing.assert_close(gradient, tensors[f"{case}/grad/{key}"], **EXACT)
        torch.testing.assert_close(path_length(lengths, loss.mean)[1], tensors[f"{case}/pl_mean_after"], **EXACT)
        loss.update([value.parts])
        torch.testing.assert_close(loss.mean, tensors[f"{case}/pl_mean_after"], **EXACT)


def test_path_length_of_half_the_batch(golden):
    tensors, case = golden("losses/path_length.safetensors"), "case/comps.shrink2.decay02.w8"
    loss = PathLength(shrink=2, decay=0.02)
    value = loss(generator_of(tensors)[0], tensors["input/latents"], tensors[f"{case}/noise_unscaled"])
    torch.testing.assert_close(8.0 * value.total, tensors[f"{case}/out"], **EXACT)
    loss.update([value.parts])
    torch.testing.assert_close(loss.mean, tensors[f"{case}/pl_mean_after"], **EXACT)


def test_no_case_of_path_length_is_left_out(golden):
    assert {*STEPS, "comps.shrink2.decay02.w8"} == set(golden("losses/manifest.json")["path_length"])
