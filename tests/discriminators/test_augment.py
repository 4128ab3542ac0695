"""Augmentations around a discriminator: differentiable twice, one draw for all images of a pass, state in update."""

import copy
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from smalti.config import build, config_of
from smalti.config.schema import option_parameters
from smalti.discriminators import Augmentation, Discriminator
from smalti.discriminators.ada import ADA, GROUPS
from smalti.discriminators.diff_augment import DiffAugment
from smalti.discriminators.patch import Patch
from smalti.losses.hinge import HingeDiscriminator
from smalti.losses.r1 import R1, r1
from smalti.nn.warp import flip, resample, translate
from smalti.objectives import DiscriminatorPhase, GeneratorPhase, Term
from smalti.outputs import DiscriminatorOutput
from tests.contracts.examples import registered
from tests.objectives.toys import NOW, ToyModel, batch_of, generator_terms

STRONG = {ADA: {"initial": 1.0, "groups": GROUPS}, DiffAugment: {}}
every_augmentation = pytest.mark.parametrize("cls", list(registered(Augmentation)))


def images(batch=4, channels=3, size=16, dtype=torch.float64):
    return 2.0 * torch.rand(batch, channels, size, size, dtype=dtype) - 1.0


def strong(cls):
    return cls(**STRONG.get(cls, {}))


def small_patch(augment=None, condition_channels=0):
    return Patch(channels=4, layers=1, norm="none", condition_channels=condition_channels, augment=augment).double()


@every_augmentation
def test_changes_images_and_keeps_shape_dtype_and_state(cls):
    augment, x = strong(cls), images()
    before = copy.deepcopy(augment.state_dict())
    changed, condition = augment(x)
    assert condition is None
    assert changed.shape == x.shape
    assert changed.dtype == x.dtype
    assert not torch.allclose(changed, x)
    assert all(torch.equal(value, before[key]) for key, value in augment.state_dict().items())


@every_augmentation
def test_gradient_is_numeric_also_the_second(cls):
    augment = strong(cls)
    x = images(1, size=8).requires_grad_()

    def cubed(x):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return augment(x)[0].pow(3).sum()

    assert torch.autograd.gradcheck(cubed, (x,), fast_mode=True)
    assert torch.autograd.gradgradcheck(cubed, (x,), fast_mode=True)


@every_augmentation
def test_penalty_goes_through_it(cls):
    discriminator = small_patch(strong(cls))
    r1(discriminator, images()).backward()
    assert all(p.grad is not None for name, p in discriminator.named_parameters() if "weight" in name)


@every_augmentation
def test_acts_in_training_only(cls):
    discriminator, x = small_patch(strong(cls)), images()
    plain = small_patch()
    plain.load_state_dict(discriminator.state_dict(), strict=False)
    assert not torch.allclose(discriminator(x).logits, plain(x).logits)
    assert torch.equal(discriminator.eval()(x).logits, plain(x).logits)


@every_augmentation
def test_condition_moves_with_its_image(cls):
    augment, x = strong(cls), images()
    positions = torch.arange(16.0, dtype=x.dtype).expand(4, 2, 16, 16)
    colors_off = {ADA: {"initial": 1.0, "groups": ["blit", "geometry", "cutout"]},
                  DiffAugment: {"policy": ["translation", "cutout"]}}  # fmt: skip
    only_places = cls(**colors_off[cls]) if cls in colors_off else augment
    moved, condition = only_places(x[:, :2] * 0.0 + positions, positions)
    assert torch.equal(moved, condition)


@every_augmentation
def test_equal_draws_treat_equal_batches_alike(cls):
    augment, x = strong(cls), images()
    with augment.equal_draws():
        first, second = augment(x)[0], augment(x)[0]
        mixed = augment(x.flip(0))[0]
    assert torch.equal(first, second)
    assert not torch.allclose(mixed.flip(0), first)
    assert not torch.allclose(augment(x)[0], augment(x)[0])
    with augment.equal_draws():
        assert not torch.allclose(augment(x)[0], first)


@every_augmentation
def test_images_are_drawn_apart(cls):
    changed, _ = strong(cls)(images(1).expand(4, -1, -1, -1))
    assert not torch.allclose(changed[0], changed[1])


@every_augmentation
def test_runs_in_full_precision(cls):
    augment, x = strong(cls), images(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16), augment.equal_draws():
        inside = augment(x)[0]
        with torch.autocast("cpu", enabled=False):
            assert torch.equal(inside, augment(x)[0])
    assert inside.dtype == torch.float32


@every_augmentation
def test_is_built_from_a_recipe_within_its_discriminator(cls):
    discriminator = small_patch(strong(cls))
    rebuilt = build(config_of(discriminator), Discriminator)
    assert type(rebuilt.augment) is cls
    assert config_of(rebuilt) == config_of(discriminator)
    assert set(rebuilt.state_dict()) == set(discriminator.state_dict())


@every_augmentation
def test_docstring_has_shapes_source_and_options(cls):
    assert "(B," in cls.__doc__
    assert re.search(r"arXiv:\d{4}\.\d{4,5}", cls.__doc__)
    for option in option_parameters(cls):
        assert re.search(rf"^\s+{option}: ", cls.__doc__, re.MULTILINE), option


@every_augmentation
def test_gray_images_and_other_sizes_are_fine(cls):
    assert strong(cls)(images(2, channels=1, size=9))[0].isfinite().all()
    assert strong(cls)(torch.zeros(2, 3, 8, 12))[0].shape == (2, 3, 8, 12)


def discriminator_phase(augment, *terms):
    terms = [Term(name="gan", loss=HingeDiscriminator()), *terms]
    return DiscriminatorPhase(small_patch(augment), terms, model=ToyModel().double())


@every_augmentation
def test_a_real_image_and_its_perfect_copy_are_judged_alike_in_a_pass(cls):
    phase, batch = discriminator_phase(strong(cls), Term(name="r1", loss=R1())), batch_of()
    phase.train()
    _, report = phase(batch, NOW, fake=batch["image"])
    assert report.measures["logits_real"] == report.measures["logits_fake"]
    assert report.terms["r1"].raw > 0.0


def test_the_generator_meets_the_augmented_discriminator():
    judge = small_patch(DiffAugment())
    phase = GeneratorPhase(ToyModel().double(), generator_terms(adaptive=False), discriminator=judge).double()
    batch = batch_of()
    values = {phase(batch, NOW)[1].terms["gan"].raw.item() for _ in range(3)}
    assert len(values) == 3
    phase.eval()
    assert len({phase(batch, NOW)[1].terms["gan"].raw.item() for _ in range(3)}) == 1


# --- DiffAugment ----------------------------------------------------------------------------------------------------
def test_color_of_diff_augment_keeps_what_it_should():
    x = images()
    gray = x.mean(dim=1, keepdim=True).expand_as(x)
    changed, _ = DiffAugment(policy=["color"])(gray)
    torch.testing.assert_close(changed[:, :1].expand_as(changed), changed)
    spread = changed.flatten(1).std(dim=1) / gray.flatten(1).std(dim=1)
    assert ((spread > 0.5) & (spread < 1.5)).all()


def test_translation_of_diff_augment_moves_by_an_eighth_at_most():
    x = torch.zeros(64, 1, 16, 16)
    x[..., 8, 8] = 1.0
    moved, _ = DiffAugment(policy=["translation"])(x)
    places = moved.flatten(1).argmax(dim=1)
    distances = torch.stack([places // 16 - 8, places % 16 - 8]).abs()
    assert distances.max().item() == 2
    assert (moved.flatten(1).sum(dim=1) == 1.0).all()


def test_cutout_of_diff_augment_hides_at_most_a_quarter():
    holes, _ = DiffAugment(policy=["cutout"])(torch.ones(64, 1, 16, 16))
    hidden = (holes == 0.0).flatten(1).sum(dim=1)
    assert hidden.max().item() == 64
    assert hidden.min().item() >= 16


@pytest.mark.parametrize("make", [lambda: DiffAugment(policy=["colour"]), lambda: DiffAugment(policy=[])])
def test_unknown_policy_is_refused(make):
    with pytest.raises(ValueError, match="expected some of 'color', 'translation', 'cutout'"):
        make()


# --- ADA ------------------------------------------------------------------------------------------------------------
def record(sign, batch=10):
    return DiscriminatorOutput(logits=torch.full((batch, 1, 2, 2), float(sign)))


def test_ada_without_probability_does_nothing():
    x = images()
    torch.testing.assert_close(ADA(groups=GROUPS)(x)[0], x)


@pytest.mark.parametrize("group", GROUPS)
def test_every_group_of_ada_acts(group):
    x = images()
    assert not torch.allclose(ADA(groups=[group], initial=1.0)(x)[0], x)


def test_ada_probability_is_the_share_of_images():
    x = images(2000, channels=1, size=2)
    changed, _ = ADA(groups=["color"], initial=0.3)(x)
    share = (changed != x).flatten(1).any(dim=1).double().mean().item()
    # brightness or contrast
    assert share == pytest.approx(1.0 - 0.7**2, abs=0.04)


def test_ada_follows_the_sign_of_real_logits_every_interval():
    augment = ADA(interval=4, ramp=1000, initial=0.5)
    for _ in range(3):
        augment.update([record(1), record(1)])
        assert augment.probability.item() == 0.5
    augment.update([record(1), record(1)])
    assert augment.probability.item() == pytest.approx(0.5 + 80 / 1000)
    assert not augment.signs.any()
    for _ in range(4):
        augment.update([record(1), record(-1)])  # r = 0 lies below 0.6
    assert augment.probability.item() == pytest.approx(0.5)
    augment.update([])
    assert not augment.signs.any()


def test_ada_probability_stays_between_nothing_and_certainty():
    # MMagic has no upper bound
    for sign, end in ((1, 1.0), (-1, 0.0)):
        augment = ADA(interval=1, ramp=10, initial=0.5)
        augment.update([record(sign)])
        assert augment.probability.item() == end


def test_ada_is_told_by_its_phase_after_a_step_only():
    augment = ADA(interval=1, ramp=100)
    phase = discriminator_phase(augment)
    nn.init.constant_(phase.network.main[-1].bias, 100.0)
    reports = [phase(batch_of(), NOW)[1] for _ in range(2)]
    assert augment.probability.item() == 0.0
    phase.update(reports)
    assert augment.probability.item() == pytest.approx(6 / 100)
    logged = [report.measures["augment/probability"] for report in (reports[0], phase(batch_of(), NOW)[1])]
    assert [p.item() for p in logged] == pytest.approx([0.0, 6 / 100])
    assert "network.augment.probability" in phase.state_dict()


@pytest.mark.parametrize("make", [lambda: ADA(groups=["filter"]), lambda: ADA(initial=2.0)])
def test_options_of_ada_out_of_bounds_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


# --- moving pixels --------------------------------------------------------------------------------------------------
def test_resampling_is_torchs_with_reflection():
    x, matrix = images(size=7), torch.eye(2, 3, dtype=torch.float64) + 0.8 * torch.randn(4, 2, 3, dtype=torch.float64)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    expected = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    torch.testing.assert_close(resample(x, matrix), expected)


def test_translation_and_flip_are_slices():
    x = images(2, size=5)
    moved = translate(x, torch.tensor([1, 0]), torch.tensor([0, -2]))
    assert torch.equal(moved[0, :, 1:], x[0, :, :-1])
    assert not moved[0, :, 0].any()
    assert torch.equal(moved[1, :, :, :-2], x[1, :, :, 2:])
    assert torch.equal(flip(x, torch.tensor([True, False])), torch.stack([x[0].flip(-1), x[1]]))
