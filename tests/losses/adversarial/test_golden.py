"""All 106 adversarial cases and the 5 of DeblurGANv2's family: equal, or different for a reason that is named."""

from functools import partial

import pytest
import torch
from torch import Tensor

from smalti.losses.began import BEGANDiscriminator
from smalti.losses.bgan import bgan_generator
from smalti.losses.disc_shift import disc_shift
from smalti.losses.ebgan import pull_away
from smalti.losses.gradient_penalty import gradient_penalty
from smalti.losses.hinge import hinge_discriminator, hinge_generator
from smalti.losses.l1_gan import l1_gan_discriminator, l1_gan_generator
from smalti.losses.lecam import lecam
from smalti.losses.lsgan import lsgan_discriminator, lsgan_generator
from smalti.losses.non_saturating import (
    non_saturating_discriminator,
    non_saturating_generator,
)
from smalti.losses.relativistic import relativistic_discriminator, relativistic_generator
from smalti.losses.relativistic_average import relativistic_average_discriminator, relativistic_average_generator
from smalti.losses.smgan import gaussian_blur, smgan_discriminator, smgan_generator
from smalti.losses.softmax_gan import softmax_gan_discriminator, softmax_gan_generator
from smalti.losses.vanilla import vanilla_discriminator, vanilla_generator
from smalti.losses.wgan import wgan_discriminator, wgan_generator
from tests.losses.originals import EXACT, Case, TinyCritic

BOTH = {"real": "real", "fake": "fake"}
LOGITS = ("logits_patch", "logits_vec", "logits_extreme")

# name -> discriminator, generator, and the generator as MMagic calls it with target_is_real=False
PAIRS = {
    "vanilla": (vanilla_discriminator, vanilla_generator, partial(vanilla_generator, real_label=0.0)),
    "lsgan": (lsgan_discriminator, lsgan_generator, partial(lsgan_generator, real_label=0.0)),
    "wgan": (wgan_discriminator, wgan_generator, lambda logits: -wgan_generator(logits)),
    "hinge": (hinge_discriminator, hinge_generator, hinge_generator),
    "l1": (l1_gan_discriminator, l1_gan_generator, partial(l1_gan_generator, real_label=0.0)),
    "wgan-logistic-ns": (
        non_saturating_discriminator,
        non_saturating_generator,
        partial(vanilla_generator, real_label=0.0),
    ),
}


def sides(stem: str, discriminator, source: str) -> dict[str, Case]:
    """Both sides of a discriminator's loss: ours is their sum, MMagic computes them apart."""
    real, fake = f"{stem}.real.D", f"{stem}.fake.D"
    return {
        real: Case(lambda logits: discriminator(logits, logits.detach()), {"logits": source}, plus=fake),
        fake: Case(lambda logits: discriminator(logits.detach(), logits), {"logits": source}, plus=real),
    }


def gan_loss_cases() -> dict[str, Case]:
    cases = {}
    for name, (discriminator, generator, reverse) in PAIRS.items():
        for source in LOGITS:
            stem = f"{name}.{source}"
            cases |= sides(stem, discriminator, source)
            for target, function in (("real", generator), ("fake", reverse)):
                weighted = partial(lambda logits, of: 0.3 * of(logits), of=function)
                cases[f"{stem}.{target}.G"] = Case(weighted, {"logits": source})
    labels = {"real_label": 0.9, "fake_label": 0.1}
    cases |= sides("vanilla.smooth", partial(vanilla_discriminator, **labels), "logits_patch")
    cases |= sides("lsgan.smooth", partial(lsgan_discriminator, **labels), "logits_patch")
    return cases


def ema(tensors):
    return tensors["input/ema_real"], tensors["input/ema_fake"]


EQUAL = gan_loss_cases() | {
    "DiscShiftLoss": Case(lambda logits: 0.001 * disc_shift(logits, logits), {"logits": "logits_vec"}),
    # not reduced there: ours is the mean of its 8 values
    "DiscShiftLossComps": Case(lambda logits: 8 * 0.0005 * disc_shift(logits, logits), {"logits": "logits_vec"}),
    "fqgan.hinge_d_loss": Case(lambda real, fake: 0.5 * hinge_discriminator(real, fake), BOTH),
    "fqgan.vanilla_d_loss": Case(lambda real, fake: 0.5 * vanilla_discriminator(real, fake), BOTH),
    "fqgan.hinge_gen_loss": Case(hinge_generator, {"fake": "fake"}),
    "relativistic.avg.D": Case(lambda real, fake: 0.5 * relativistic_average_discriminator(real, fake), BOTH),
    "relativistic.paired.D": Case(relativistic_discriminator, BOTH),
    "relativistic.paired.G": Case(relativistic_generator, BOTH),
    "rpgan.D": Case(relativistic_discriminator, BOTH),
    "rpgan.G": Case(relativistic_generator, BOTH),
    "bgan.G": Case(lambda prob: bgan_generator(torch.logit(prob)), {"prob": lambda t: t["input/fake"].sigmoid()}),
    # an energy there, low for real images
    "softmaxgan.D": Case(lambda real, fake: softmax_gan_discriminator(-real, -fake), BOTH),
    "softmaxgan.G": Case(lambda real, fake: softmax_gan_generator(-real, -fake), BOTH),
}
MASKS = ("mask_same", "mask_big")
BY_OWN_TESTS = {"blur.mask_big", "blur.5x7", "lecam.batch_mean_logits", "lecam.per_logit", "began.control"} | {
    f"smgan.{mask}.{side}.D" for mask in MASKS for side in ("real", "fake")
}
DIFFERENT = {
    "fqgan.non_saturating_d_loss": "swaps logit and label: no slope on fakes",
    "fqgan.non_saturating_gen_loss": "swaps logit and label: a WGAN generator's loss",
    "relativistic.avg.G": "leaves out the real images' half of the paper's loss",
    "ebgan.pullaway": "forgets to square the cosine",
    **{f"smgan.{mask}.real.G": "multiplies a mean by the mask: no effect" for mask in MASKS},
}
NOT_OFFERED = {
    f"smgan.{mask}.fake.G": "a generator that wants its images called fake; nobody calls it so" for mask in MASKS
}


@pytest.fixture
def tensors(golden):
    return golden("losses/adversarial.safetensors")


def test_no_case_is_left_out(golden):
    groups = [set(EQUAL), BY_OWN_TESTS, set(DIFFERENT), set(NOT_OFFERED)]
    assert set().union(*groups) == set(golden("losses/manifest.json")["adversarial"])
    assert sum(map(len, groups)) == 106


@pytest.mark.parametrize("name", EQUAL)
def test_equals_the_original(tensors, name):
    EQUAL[name].check(name, tensors)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("side", ["real", "fake"])
def test_smgan_discriminator_with_the_originals_labels(tensors, mask, side):
    labelled = partial(smgan_discriminator, mask=tensors[f"input/{mask}"], known_label=0.0, painted_label=1.0)
    name = f"smgan.{mask}.{side}.D"
    sides(f"smgan.{mask}", labelled, "logits_patch")[name].check(name, tensors)


@pytest.mark.parametrize("mask", MASKS)
def test_smgan_discriminator_calls_what_was_painted_made(tensors, mask):
    # the originals' code labels the painted part 1, as it labels real images; the paper's target is 1 - blur(mask)
    logits, painted = tensors["input/logits_patch"], tensors[f"input/{mask}"]
    ours = smgan_discriminator(logits, logits, painted)
    theirs = smgan_discriminator(logits, logits, painted, known_label=0.0, painted_label=1.0)
    assert not torch.isclose(ours, theirs)
    everything = torch.ones(1, 1, 3, 3)
    assert smgan_discriminator(everything, 0.0 * everything, everything, kernel_size=1).item() == 0.0


@pytest.mark.parametrize("mask", MASKS)
def test_smgan_generator_weighs_each_position(tensors, mask):
    # the originals multiply a scalar by mask / mean(mask), whose mean is 1
    name, logits = f"smgan.{mask}.real.G", tensors["input/logits_patch"].clone().requires_grad_()
    painted = tensors[f"input/{mask}"]
    theirs = 0.01 * smgan_generator(logits, torch.ones_like(painted))
    torch.testing.assert_close(theirs, tensors[f"case/{name}/out"], **EXACT)
    (gradient,) = torch.autograd.grad(theirs, logits)
    torch.testing.assert_close(gradient, tensors[f"case/{name}/grad/logits"], **EXACT)
    assert not torch.isclose(0.01 * smgan_generator(logits, painted), theirs)
    if mask == "mask_same":
        (gradient,) = torch.autograd.grad(smgan_generator(logits, painted), logits)
        assert not gradient[painted == 0.0].any()
        assert gradient[painted == 1.0].all()


def test_blur_is_the_originals(tensors):
    mask = tensors["input/mask_big"]
    torch.testing.assert_close(gaussian_blur(mask), tensors["case/blur.mask_big/out"], **EXACT)
    torch.testing.assert_close(gaussian_blur(mask, (5, 7), (1.0, 2.0)), tensors["case/blur.5x7/out"], **EXACT)
    point = torch.zeros(1, 1, 71, 71)
    point[..., 35, 35] = 1.0
    torch.testing.assert_close(gaussian_blur(point)[0, 0], tensors["gaussian_kernel_71_s10"], **EXACT)


@pytest.mark.parametrize(("name", "level"), [("lecam.batch_mean_logits", "batch"), ("lecam.per_logit", "logit")])
def test_lecam_of_titok_and_seed_voken(tensors, name, level):
    real, fake = (tensors[f"input/ema_{side}"].squeeze() for side in ("real", "fake"))
    Case(lambda r, f: lecam(r, f, real, fake, level=level), BOTH).check(name, tensors)


def test_began_controller(tensors):
    def images(value: Tensor) -> Tensor:
        return value.reshape(1, 1, 1, 1).expand(2, 1, 4, 4)

    case = {key.rpartition("/")[2]: t for key, t in tensors.items() if key.startswith("case/began.control/")}
    loss, black = BEGANDiscriminator(), torch.zeros(2, 1, 4, 4)
    for i in range(6):
        value = loss(black, black, images(case["L_real"][i]), images(case["L_fake"][i]))
        torch.testing.assert_close(value.total, case["d_loss"][i], **EXACT)
        torch.testing.assert_close(value.parts["convergence"], case["M"][i], **EXACT)
        loss.update([value.parts])
        torch.testing.assert_close(loss.k, case["k_after"][i], **EXACT)


def test_non_saturating_has_a_slope_on_fakes(tensors):
    # LlamaGen and FQGAN swap the arguments of the cross-entropy
    assert not tensors["case/fqgan.non_saturating_d_loss/grad/fake"].any()
    real, fake = (tensors[f"input/{side}"].clone().requires_grad_() for side in ("real", "fake"))
    value = 0.5 * non_saturating_discriminator(real, fake)
    assert not torch.isclose(value, tensors["case/fqgan.non_saturating_d_loss/out"])
    assert (torch.autograd.grad(value, fake)[0] > 0.0).all()
    swapped = torch.nn.functional.softplus(torch.tensor(1.0)) + wgan_generator(fake)
    torch.testing.assert_close(swapped, tensors["case/fqgan.non_saturating_gen_loss/out"], **EXACT)
    assert not torch.isclose(non_saturating_generator(fake), swapped)


def test_relativistic_average_generator_has_both_halves(tensors):
    real, fake = tensors["input/real"], tensors["input/fake"]
    half = Case(lambda fake: non_saturating_generator(fake - real.mean()), {"fake": "fake"})
    half.check("relativistic.avg.G", tensors)
    other = vanilla_generator(real - fake.mean(), real_label=0.0)
    ours = relativistic_average_generator(real, fake)
    torch.testing.assert_close(ours, tensors["case/relativistic.avg.G/out"] + other, **EXACT)


def test_pull_away_is_squared(tensors):
    embeddings = tensors["input/embeddings"]
    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T)[~torch.eye(6, dtype=torch.bool)]
    torch.testing.assert_close(cosines.mean(), tensors["case/ebgan.pullaway/out"], **EXACT)
    torch.testing.assert_close(pull_away(embeddings), cosines.square().mean())
    # opposite embeddings are as alike as equal ones; without the square they would be wanted
    assert pull_away(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).item() == 1.0


# --- DeblurGANv2's family, 3 steps each -----------------------------------------------------------------------------
ADVLOSS = {
    "gan": (lambda real, fake: 0.5 * vanilla_discriminator(real, fake), vanilla_generator),
    # called lsgan, and L1
    "lsgan": (lambda real, fake: 0.5 * l1_gan_discriminator(real, fake), l1_gan_generator),
    "wgan-gp": (wgan_discriminator, wgan_generator),
}
POOLED = {
    "ragan": "logistic",  # means over the last 50 batches, without gradient, shared by both players: not offered
    "ragan-ls": "least_squares",
}


def judged(tensors, i: int):
    critic = TinyCritic(tensors, "scalar")
    return critic, *(critic(tensors[f"input/{side}{i}"]).logits for side in ("real", "fake"))


@pytest.mark.parametrize("name", ADVLOSS)
@pytest.mark.parametrize("step", range(3))
def test_equals_deblurgan(golden, name, step):
    tensors = golden("losses/advloss.safetensors")
    critic, real, fake = judged(tensors, step)
    discriminator, generator = ADVLOSS[name]
    loss = discriminator(real, fake)
    if name == "wgan-gp":
        images = [tensors[f"input/{side}{step}"] for side in ("real", "fake", "alpha")]
        loss = loss + 10.0 * gradient_penalty(critic, *images, norm="pixel")
    torch.testing.assert_close(loss, tensors[f"case/{name}/d_losses"][step], **EXACT)
    torch.testing.assert_close(generator(fake), tensors[f"case/{name}/g_losses"][step], **EXACT)


@pytest.mark.parametrize(("name", "form"), POOLED.items())
def test_equals_deblurgan_as_long_as_its_pool_holds_one_batch(golden, name, form):
    tensors = golden("losses/advloss.safetensors")
    for step in range(3):
        _, real, fake = judged(tensors, step)
        values = (
            0.5 * relativistic_average_discriminator(real, fake, form=form),
            0.5 * relativistic_average_generator(real, fake, form=form),
        )
        for value, key in zip(values, ("d_losses", "g_losses"), strict=True):
            assert torch.isclose(value, tensors[f"case/{name}/{key}"][step], **EXACT) == (step == 0)


@pytest.mark.parametrize("form", ["logistic", "least_squares"])
def test_means_that_are_cut_off_move_nothing(form):
    """The value stays; the gradient is that of logits around given numbers, as in ESRGAN and DeblurGANv2."""
    real, fake = torch.randn(2, 6, dtype=torch.float64).requires_grad_().unbind()
    means = real.mean().item(), fake.mean().item()

    def distance(scores):
        return torch.nn.functional.softplus(-scores) if form == "logistic" else (scores - 1.0).square()

    expected = distance(fake - means[0]).mean() + distance(means[1] - real).mean()
    found = relativistic_average_generator(real, fake, form=form, detach=True)
    whole = relativistic_average_generator(real, fake, form=form)
    torch.testing.assert_close(found, whole)
    slopes = [torch.autograd.grad(value, [real, fake], retain_graph=True) for value in (found, expected, whole)]
    torch.testing.assert_close(slopes[0], slopes[1])
    assert not torch.allclose(slopes[0][0], slopes[2][0])
    other = relativistic_average_discriminator(fake, real, form=form, detach=True)
    torch.testing.assert_close(torch.autograd.grad(other, [real, fake]), slopes[0])


def test_no_case_of_deblurgan_is_left_out(golden):
    assert set(ADVLOSS) | set(POOLED) == set(golden("losses/manifest.json")["advloss"])
