"""Adversarial pairs against the originals' numbers, and what a game needs: slopes where they belong."""

import pytest
import torch
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses.hinge import HingeDiscriminator, hinge_discriminator, hinge_generator
from smalti.losses.lsgan import LSGANDiscriminator, LSGANGenerator
from smalti.losses.non_saturating import non_saturating_discriminator, non_saturating_generator
from smalti.losses.vanilla import VanillaDiscriminator, VanillaGenerator, vanilla_discriminator, vanilla_generator
from smalti.losses.wgan import wgan_discriminator
from smalti.registry import UserError, resolve


def with_gradients(function, *logits):
    logits = [value.detach().requires_grad_() for value in logits]
    value = function(*logits)
    return value, torch.autograd.grad(value, logits)


@pytest.mark.parametrize(("name", "function"), [("hinge", hinge_discriminator), ("vanilla", vanilla_discriminator)])
def test_discriminator_equals_fqgan_with_weight_one_half(golden, name, function):
    tensors = golden("fqgan/gan_losses.safetensors")
    value, (real, fake) = with_gradients(function, tensors["real"], tensors["fake"])
    torch.testing.assert_close(0.5 * value, tensors[f"d.{name}"])
    torch.testing.assert_close(0.5 * real, tensors[f"d.{name}.grad_real"])
    torch.testing.assert_close(0.5 * fake, tensors[f"d.{name}.grad_fake"])


def test_generator_equals_fqgan(golden):
    tensors = golden("fqgan/gan_losses.safetensors")
    value, (fake,) = with_gradients(hinge_generator, tensors["fake"])
    torch.testing.assert_close(value, tensors["g.hinge"])
    torch.testing.assert_close(fake, tensors["g.hinge.grad_fake"])


def test_equals_latent_diffusion_with_weight_one_half(golden):
    tensors = golden("ldm/discriminators.safetensors")
    real, fake = tensors["logits_real"], tensors["logits_fake"]
    torch.testing.assert_close(0.5 * hinge_discriminator(real, fake), tensors["hinge"][0], atol=0.0, rtol=1e-9)
    torch.testing.assert_close(0.5 * vanilla_discriminator(real, fake), tensors["vanilla"][0], atol=0.0, rtol=1e-9)


def test_non_saturating_is_not_the_originals_defect(golden):
    # FQGAN and LlamaGen swap logit and target: their discriminator has no slope on fakes, ours has.
    tensors = golden("fqgan/gan_losses.safetensors")
    value, (real, fake) = with_gradients(non_saturating_discriminator, tensors["real"], tensors["fake"])
    assert not tensors["d.non_saturating.grad_fake"].any()
    assert tensors["d.non_saturating.grad_real"].unique().numel() == 1
    assert (fake > 0.0).all()
    assert real.unique().numel() > 1
    assert not torch.isclose(0.5 * value, tensors["d.non_saturating"])
    value, (fake,) = with_gradients(non_saturating_generator, tensors["fake"])
    assert tensors["g.non_saturating.grad_fake"].unique().numel() == 1
    assert fake.unique().numel() > 1
    assert not torch.isclose(value, tensors["g.non_saturating"])


def test_non_saturating_generator_keeps_its_slope_on_hopeless_fakes():
    _, (hopeless,) = with_gradients(non_saturating_generator, torch.tensor([-30.0]))
    assert hopeless.item() == pytest.approx(-1.0)


@pytest.mark.parametrize("label", [0.0, 0.1, 0.9, 1.0])
def test_vanilla_is_binary_cross_entropy_with_any_label(label):
    logits = torch.randn(2, 1, 3, 3, dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))
    torch.testing.assert_close(vanilla_generator(logits, real_label=label), expected)
    both = vanilla_discriminator(logits, logits, real_label=label, fake_label=label)
    torch.testing.assert_close(both, 2.0 * expected)


def test_vanilla_with_labels_one_and_zero_is_non_saturating():
    real, fake = torch.randn(2, 4, 1, 3, 3).unbind()
    torch.testing.assert_close(vanilla_discriminator(real, fake), non_saturating_discriminator(real, fake))
    torch.testing.assert_close(vanilla_generator(fake), non_saturating_generator(fake))


def test_extreme_logits_are_finite():
    real, fake = torch.tensor([200.0, -200.0]), torch.tensor([-200.0, 200.0])
    for function in (hinge_discriminator, vanilla_discriminator, non_saturating_discriminator, wgan_discriminator):
        value, gradients = with_gradients(function, real, fake)
        assert torch.isfinite(value)
        assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_hinge_has_no_slope_beyond_its_margin():
    _, (real, fake) = with_gradients(hinge_discriminator, torch.tensor([1.5, 0.5]), torch.tensor([-1.5, 0.5]))
    assert real.tolist() == [0.0, -0.5]
    assert fake.tolist() == [0.0, 0.5]


def test_hinge_at_zero_logits_is_two():
    assert HingeDiscriminator()(torch.zeros(2, 1, 3, 3), torch.zeros(2, 1, 3, 3)).item() == 2.0


def test_lsgan_is_least_at_its_labels():
    real, fake = torch.full((3,), 0.8), torch.full((3,), -0.2)
    assert LSGANDiscriminator(real_label=0.8, fake_label=-0.2)(real, fake).item() == 0.0
    assert LSGANGenerator(real_label=0.8)(real).item() == 0.0


def test_wgan_ignores_a_constant_and_is_minus_the_distance():
    real, fake = torch.randn(2, 5, dtype=torch.float64).unbind()
    shifted = wgan_discriminator(real + 3.0, fake + 3.0)
    torch.testing.assert_close(shifted, wgan_discriminator(real, fake))
    torch.testing.assert_close(-shifted, real.mean() - fake.mean())


def test_real_and_fake_batches_may_differ_in_size():
    value = vanilla_discriminator(torch.zeros(5, 1, 2, 2), torch.zeros(3, 1, 2, 2))
    assert value.item() == pytest.approx(2.0 * 0.6931472)


def test_labels_of_a_classifier_are_probabilities():
    for make in (lambda: VanillaGenerator(real_label=1.2), lambda: VanillaDiscriminator(fake_label=-0.1)):
        with pytest.raises(ValueError, match=r"expected a number in \[0, 1\]"):
            make()


def test_the_phase_selects_the_player():
    assert resolve("hinge", Loss, "discriminator") is HingeDiscriminator
    with pytest.raises(UserError, match="two classes"):
        resolve("hinge", Loss)
