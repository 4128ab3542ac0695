"""What the adversarial pairs and their aids keep beyond the originals' numbers: margins, state, pairing."""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from smalti.losses.began import BEGANDiscriminator
from smalti.losses.bgan import bgan_generator
from smalti.losses.disc_shift import disc_shift
from smalti.losses.ebgan import EBGANDiscriminator, EBGANGenerator, ebgan_discriminator, ebgan_generator, pull_away
from smalti.losses.feature_matching import feature_matching
from smalti.losses.hinge import hinge_discriminator, hinge_generator
from smalti.losses.l1_gan import L1GANDiscriminator, L1GANGenerator
from smalti.losses.lecam import LeCam
from smalti.losses.non_saturating import non_saturating_generator
from smalti.losses.relativistic import relativistic_discriminator
from smalti.losses.relativistic_average import relativistic_average_discriminator
from smalti.losses.saturating import saturating_generator
from smalti.losses.smgan import SMGANDiscriminator
from smalti.losses.softmax_gan import softmax_gan_discriminator, softmax_gan_generator
from smalti.losses.weighted_hinge import weighted_hinge_discriminator, weighted_hinge_generator
from smalti.objectives import DiscriminatorPhase, Term
from tests.objectives.toys import NOW, ToyCritic, ToyModel, batch_of, discriminator_terms


def slope(function, *logits):
    logits = [value.detach().requires_grad_() for value in logits]
    return torch.autograd.grad(function(*logits), logits)


def test_saturating_has_no_slope_on_hopeless_fakes_and_the_minimum_of_the_other():
    hopeless, fooled = torch.tensor([-30.0]), torch.tensor([30.0])
    assert abs(slope(saturating_generator, hopeless)[0].item()) < 1e-6
    assert slope(saturating_generator, fooled)[0].item() == pytest.approx(-1.0)
    assert slope(non_saturating_generator, hopeless)[0].item() == pytest.approx(-1.0)
    # log(1 - sigmoid(f)) of the minimax game
    logits = torch.randn(5)
    torch.testing.assert_close(saturating_generator(logits), torch.log(1.0 - logits.sigmoid()).mean())


def test_l1_gan_is_least_at_its_labels():
    real, fake = torch.full((3,), 0.8), torch.full((3,), -0.2)
    assert L1GANDiscriminator(real_label=0.8, fake_label=-0.2)(real, fake).item() == 0.0
    assert L1GANGenerator(real_label=0.8)(real).item() == 0.0


def test_weighted_hinge_equals_latent_diffusion_with_weight_one_half(golden):
    tensors = golden("ldm/discriminators.safetensors")
    value = weighted_hinge_discriminator(tensors["logits_real"], tensors["logits_fake"], tensors["exemplar_w"])
    torch.testing.assert_close(0.5 * value, tensors["hinge_exemplar"][0], atol=0.0, rtol=1e-9)


def test_equal_weights_are_no_weights_and_a_sample_of_weight_zero_is_not_there():
    real, fake = torch.randn(2, 4, 1, 3, 3).unbind()
    torch.testing.assert_close(
        weighted_hinge_discriminator(real, fake, torch.full((4,), 2.0)), hinge_discriminator(real, fake)
    )
    kept = torch.tensor([1.0, 1.0, 0.0, 1.0])
    torch.testing.assert_close(weighted_hinge_generator(fake, kept), hinge_generator(fake[kept.bool()]))
    halved = weighted_hinge_generator(fake, torch.full((4,), 0.5), weighting="mean_of_weighted")
    torch.testing.assert_close(halved, 0.5 * hinge_generator(fake))


def test_relativistic_depends_on_differences_only_and_needs_pairs():
    real, fake = torch.randn(2, 6, dtype=torch.float64).unbind()
    for function in (relativistic_discriminator, relativistic_average_discriminator):
        torch.testing.assert_close(function(real + 5.0, fake + 5.0), function(real, fake))
    with pytest.raises(ValueError, match="must be equal to be paired"):
        relativistic_discriminator(real, fake[:5])
    assert relativistic_average_discriminator(real, fake[:5]).isfinite()


def test_relativistic_average_carries_a_gradient_through_the_means():
    # DeblurGANv2 and ESRGAN cut it
    real, fake = torch.randn(2, 6).unbind()

    def cut(real, fake):
        return F.softplus(fake.mean().detach() - real).mean() + F.softplus(fake - real.mean().detach()).mean()

    torch.testing.assert_close(relativistic_average_discriminator(real, fake), cut(real, fake))
    ours, theirs = slope(relativistic_average_discriminator, real, fake), slope(cut, real, fake)
    assert not torch.allclose(ours[0], theirs[0])


def test_softmax_gan_is_a_cross_entropy_over_the_batch():
    real, fake = torch.randn(2, 4, dtype=torch.float64).unbind()
    shares = torch.cat([real, fake]).log_softmax(dim=0)
    torch.testing.assert_close(softmax_gan_discriminator(real, fake), -shares[:4].mean())
    torch.testing.assert_close(softmax_gan_generator(real, fake), -shares.mean())
    least = softmax_gan_generator(torch.full((4,), 7.0), torch.full((4,), 7.0))
    assert least.item() == pytest.approx(math.log(8.0))
    assert softmax_gan_discriminator(torch.tensor([1e4]), torch.tensor([-1e4])).isfinite()


def test_boundary_seeking_is_finite_where_probabilities_round():
    # PyTorch-GAN: log(p) - log(1 - p) with p = 1 is infinite
    assert torch.logit(torch.tensor([200.0]).sigmoid()).isinf()
    assert bgan_generator(torch.tensor([200.0])).item() == 20000.0


def test_disc_shift_of_real_scores_alone_is_a_mapping():
    term = Term(name="shift", loss=disc_shift, inputs={"logits_fake": "logits_real"})
    real = torch.randn(5)
    torch.testing.assert_close(term({"logits_real": real}).total, real.square().mean())


def test_energy_beyond_the_margin_is_left_alone_for_each_image():
    images = torch.zeros(2, 1, 4, 4)
    made = torch.stack([torch.full((1, 4, 4), 2.0), torch.full((1, 4, 4), 0.5)]).requires_grad_()
    loss = ebgan_discriminator(images, images, images, made, margin=1.0)
    (gradient,) = torch.autograd.grad(loss, made)
    assert not gradient[0].any()
    assert (gradient[1] < 0.0).all()
    assert loss.item() == pytest.approx(0.5 * 0.75)


def test_pull_away_is_added_where_an_embedding_is_bound():
    images, embedding = torch.zeros(3, 1, 4, 4), (torch.ones(3, 2, 4, 4), torch.ones(3, 5))
    assert ebgan_generator(images, images).item() == 0.0
    value = EBGANGenerator(pull_away_weight=0.3)(images, images, embedding)
    assert value.item() == pytest.approx(0.3)
    with pytest.raises(ValueError, match="at least 2 samples"):
        pull_away(torch.ones(1, 4))


def test_began_controller_stays_in_its_bounds_and_moves_in_update_only():
    loss = BEGANDiscriminator(gain=10.0)
    images, wrong = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    for real, fake, k in ((wrong, images, 1.0), (images, wrong, 0.0)):
        value = loss(images, images, real, fake)
        before = loss.k.clone()
        assert torch.equal(loss.k, before)
        loss.update([value.parts])
        assert loss.k.item() == k
    loss.update([])
    assert loss.k.item() == 0.0


def test_feature_matching_leaves_the_targets_alone_and_needs_features():
    real, fake = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4, requires_grad=True)
    feature_matching([real], [fake]).backward()
    assert real.grad is None
    assert fake.grad.abs().sum().item() == pytest.approx(1.0)
    for layers in ([], [real[:1]], [real, real]):
        with pytest.raises(ValueError, match="expected one pair a layer"):
            feature_matching(layers, [fake] if layers else [])


def test_lecam_means_follow_the_logits_of_all_micro_batches_after_a_step():
    loss, critic = LeCam(decay=0.9).double(), ToyCritic(norm=False).double()
    phase = DiscriminatorPhase(
        critic, [*discriminator_terms(), Term(name="lecam", loss=loss)], model=ToyModel().double()
    )
    phase.double()
    reports = []
    for _ in range(2):
        before = copy.deepcopy(loss.state_dict())
        reports.append(phase(batch_of(), NOW)[1])
        assert all(torch.equal(value, before[key]) for key, value in loss.state_dict().items())
    phase.update(reports)
    for side in ("real", "fake"):
        mean = torch.stack([report.measures[f"logits_{side}"] for report in reports]).mean()
        torch.testing.assert_close(getattr(loss, f"ema_{side}"), 0.1 * mean)
    assert {"losses.lecam.ema_real", "losses.lecam.ema_fake"} <= set(phase.state_dict())


def test_lecam_without_records_keeps_its_means():
    loss = LeCam()
    loss.update([])
    assert loss.ema_real.item() == 0.0


@pytest.mark.parametrize(
    "make",
    [
        lambda: LeCam(decay=1.5),
        lambda: LeCam(level="patch"),
        lambda: BEGANDiscriminator(gamma=2.0),
        lambda: BEGANDiscriminator(gain=-1.0),
        lambda: EBGANDiscriminator(margin=-1.0),
        lambda: EBGANGenerator(pull_away_weight=-0.1),
        lambda: SMGANDiscriminator(kernel_size=4),
        lambda: SMGANDiscriminator(sigma=0.0),
        lambda: SMGANDiscriminator(known_label=1.5),
    ],
)
def test_options_out_of_bounds_are_refused_by_name(make):
    with pytest.raises(ValueError, match=r"\w+=.+: expected"):
        make()


def test_a_mask_of_wrong_shape_is_refused():
    logits = torch.zeros(2, 1, 4, 4)
    with pytest.raises(ValueError, match=r"expected \(B, 1, h, w\), \(B, 1, H, W\)"):
        SMGANDiscriminator()(logits, logits, torch.zeros(2, 3, 8, 8))
