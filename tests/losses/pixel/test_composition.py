"""Composition losses: laws of matting, and clear errors where the originals broadcast."""

import pytest
import torch

from smalti.losses.charbonnier_composition import CharbonnierComposition, charbonnier_composition
from smalti.losses.l1_composition import L1Composition, l1_composition
from smalti.losses.mse_composition import MSEComposition, mse_composition

CLASSES = pytest.mark.parametrize("cls", [L1Composition, MSEComposition, CharbonnierComposition])


def scene(channels=3):
    foreground, background = torch.rand(2, 2, channels, 4, 5, dtype=torch.float64).unbind()
    return torch.rand(2, 1, 4, 5, dtype=torch.float64), foreground, background


@CLASSES
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_true_opacity_costs_nothing(cls, channels):
    # The originals expand weights to exactly three channels.
    alpha, foreground, background = scene(channels)
    target = alpha * foreground + (1.0 - alpha) * background
    mask = torch.ones(2, 1, 4, 5)
    assert cls()(alpha, foreground, background, target, mask).item() == pytest.approx(0.0, abs=2e-6)
    assert cls()(1.0 - alpha, foreground, background, target, mask) > 1e-2


@CLASSES
def test_exchanging_the_layers_and_the_opacity_changes_nothing(cls):
    alpha, foreground, background = scene()
    target = torch.rand_like(foreground)
    torch.testing.assert_close(
        cls()(alpha, foreground, background, target), cls()(1.0 - alpha, background, foreground, target)
    )


@CLASSES
def test_equal_layers_tell_nothing_about_the_opacity(cls):
    alpha, foreground, _ = scene()
    alpha.requires_grad_()
    value = cls()(alpha, foreground, foreground, torch.rand_like(foreground))
    (slope,) = torch.autograd.grad(value, [alpha])
    torch.testing.assert_close(slope, torch.zeros_like(slope))


@CLASSES
def test_weighted_means_divide_by_weights_or_by_elements(cls):
    alpha, foreground, background = scene()
    target, mask = torch.rand_like(foreground), (torch.rand(2, 1, 4, 5) > 0.5).double()
    plain = cls()(alpha, foreground, background, target, mask)
    by_count = cls(weighting="mean_of_weighted")(alpha, foreground, background, target, mask)
    torch.testing.assert_close(by_count, plain * mask.mean())
    one = [cls()(alpha[n:][:1], foreground[n:][:1], background[n:][:1], target[n:][:1], mask[n:][:1]) for n in (0, 1)]
    torch.testing.assert_close(
        cls(per_sample=True)(alpha, foreground, background, target, mask), torch.stack(one).mean()
    )


def test_charbonnier_has_its_floor_and_an_eps_above_zero():
    alpha, foreground, background = scene()
    target = alpha * foreground + (1.0 - alpha) * background
    value = charbonnier_composition(alpha, foreground, background, target, eps=0.25)
    assert value.item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"eps=0.0: expected > 0"):
        CharbonnierComposition(eps=0.0)


def test_shapes_that_do_not_belong_together_are_errors():
    alpha, foreground, background = scene()
    with pytest.raises(ValueError, match=r"alpha has shape \(2, 3, 4, 5\): expected \(2, 1, 4, 5\)"):
        l1_composition(alpha.expand(-1, 3, -1, -1), foreground, background, foreground)
    with pytest.raises(ValueError, match="foreground has shape"):
        mse_composition(alpha, foreground, background[:1], foreground)
    with pytest.raises(ValueError, match="must be equal"):
        l1_composition(alpha, foreground, background, foreground[:1])
