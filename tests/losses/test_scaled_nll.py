"""The scaled likelihood: normalised densities, the optimum of the scale, and latent-diffusion's numbers."""

import math

import pytest
import torch

from smalti.config import build, config_of
from smalti.extractors.lpips import LPIPS as Features  # noqa: N811
from smalti.losses import Loss
from smalti.losses.l1 import L1
from smalti.losses.lpips import LPIPS
from smalti.losses.mse import MSE
from smalti.losses.scaled_nll import Distance, ScaledNLL, optimal_log_scale, scaled_nll

L1_ONLY = {"l1": Distance(L1())}
MSE_ONLY = {"mse": Distance(MSE())}


def pair():
    return torch.randn(2, 2, 3, 4, 4, dtype=torch.float64).unbind()


@pytest.mark.parametrize("log_scale", [-1.3, 0.0, 0.7])
def test_laplace_is_the_laplace_density(log_scale):
    y, x = pair()
    value = scaled_nll(y, x, distances=L1_ONLY, likelihood="laplace", log_scale=log_scale)
    density = torch.distributions.Laplace(y, math.exp(log_scale))
    torch.testing.assert_close(value.total, -density.log_prob(x).mean())


@pytest.mark.parametrize("log_scale", [-1.3, 0.0, 0.7])
def test_gaussian_is_the_gaussian_density(log_scale):
    y, x = pair()
    value = scaled_nll(y, x, distances=MSE_ONLY, likelihood="gaussian", log_scale=log_scale, reduction="batch_sum")
    density = torch.distributions.Normal(y, math.exp(log_scale))
    torch.testing.assert_close(value.total, -density.log_prob(x).sum() / 2)


def test_latent_diffusion_is_laplace_without_its_constant():
    y, x = pair()
    original = scaled_nll(y, x, distances=L1_ONLY, likelihood="latent-diffusion", log_scale=0.3)
    density = scaled_nll(y, x, distances=L1_ONLY, likelihood="laplace", log_scale=0.3)
    torch.testing.assert_close(original.total + math.log(2.0), density.total)


@pytest.mark.parametrize(("likelihood", "distances"), [("laplace", L1_ONLY), ("gaussian", MSE_ONLY)])
@pytest.mark.parametrize("weighted", [False, True])
def test_analytic_scale_is_where_the_slope_of_the_learned_one_vanishes(likelihood, distances, weighted):
    y, x = pair()
    weight = torch.tensor([0.25, 2.0], dtype=torch.float64) if weighted else None
    analytic = ScaledNLL(distances=distances, likelihood=likelihood, scale="analytic")(y, x, weight)
    learned = ScaledNLL(
        distances=distances, likelihood=likelihood, scale="learned", log_scale=analytic.parts["log_scale"].item()
    ).double()
    total = learned(y, x, weight).total
    torch.testing.assert_close(total, analytic.total, atol=1e-6, rtol=1e-6)
    (slope,) = torch.autograd.grad(total, [learned.log_scale])
    assert abs(slope.item()) < 1e-6


def test_optimum_is_the_log_of_the_mean_distance():
    y, x = pair()
    r = (y - x).abs()
    torch.testing.assert_close(optimal_log_scale(r, None, "laplace"), r.mean().log())
    torch.testing.assert_close(optimal_log_scale(r.square(), None, "gaussian"), r.square().mean().sqrt().log())


def test_with_the_analytic_scale_the_gradient_is_that_of_the_log_of_the_mean():
    y, x = pair()
    y.requires_grad_()
    total = ScaledNLL(distances=L1_ONLY, scale="analytic")(y, x).total
    torch.testing.assert_close(torch.autograd.grad(total, [y]), torch.autograd.grad((y - x).abs().mean().log(), [y]))


def test_perfect_reconstruction_is_finite_with_the_analytic_scale():
    _, x = pair()
    y = x.clone().requires_grad_()
    value = ScaledNLL(distances=L1_ONLY, scale="analytic")(y, x)
    (gradient,) = torch.autograd.grad(value.total, [y])
    assert torch.isfinite(value.total)
    assert not gradient.any()


def test_a_distance_per_sample_counts_as_much_as_the_mean_of_one_per_element():
    # sum over pixels of (|x - y| + w p) = pixels * (mean |x - y| + w p): the reason why LPIPS is added to each pixel.
    y, x = pair()

    class PerSample(Loss):
        def forward(self, prediction, target):
            return (prediction - target).square().mean(dim=(1, 2, 3))

    distances = {"l1": Distance(L1()), "p": Distance(PerSample(), weight=0.5)}
    value = scaled_nll(y, x, distances=distances, likelihood="latent-diffusion", reduction="batch_sum")
    expected = y[0].numel() * ((y - x).abs().mean() + 0.5 * (y - x).square().mean())
    torch.testing.assert_close(value.total, expected)
    torch.testing.assert_close(value.parts["rec"], expected / y[0].numel())
    torch.testing.assert_close(value.parts["p"], (y - x).square().mean())


def test_weights_multiply_and_are_not_divided_out():
    y, x = pair()
    plain = scaled_nll(y, x, distances=L1_ONLY, reduction="batch_sum")
    doubled = scaled_nll(y, x, torch.full((2,), 2.0), distances=L1_ONLY, reduction="batch_sum")
    torch.testing.assert_close(doubled.total, 2.0 * plain.total)
    torch.testing.assert_close(doubled.unweighted, plain.total)
    torch.testing.assert_close(doubled.parts["nll"], plain.total)


def test_weight_maps_reach_their_pixels_only():
    y, x = pair()
    y.requires_grad_()
    mask = (torch.rand(2, 1, 4, 4) > 0.5).double()
    (gradient,) = torch.autograd.grad(scaled_nll(y, x, mask, distances=L1_ONLY).total, [y])
    assert torch.equal(gradient != 0.0, mask.expand_as(gradient).bool())


def test_only_the_learned_scale_is_a_parameter():
    for scale, count in (("fixed", 0), ("analytic", 0), ("learned", 1)):
        loss = ScaledNLL(distances=L1_ONLY, scale=scale)
        assert len(list(loss.parameters())) == len(loss.state_dict()) == count
    assert dict(loss.named_parameters())["log_scale"].shape == ()


def perceptual(golden):
    state = golden("ldm/kl_tiny_state.safetensors")
    prefix = "loss.perceptual_loss."
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


@pytest.fixture
def original(golden, tmp_path):
    """Image, reconstruction and a builder of latent-diffusion's likelihood with its tiny LPIPS."""
    from safetensors.torch import save_file

    save_file(perceptual(golden), tmp_path / "lpips.safetensors")
    extractor = Features(weights=str(tmp_path / "lpips.safetensors"), widths=(8, 8, 12, 12, 16))
    tensors = golden("ldm/kl_tiny_io.safetensors")

    def make(**options):
        distances = {"l1": Distance(L1()), "lpips": Distance(LPIPS(extractor=extractor))}
        options = {"distances": distances, "likelihood": "latent-diffusion", "reduction": "batch_sum"} | options
        return ScaledNLL(**options).double()

    return tensors["image"], tensors["recon_sample"], make, golden("ldm/scalars.json")


def test_equals_latent_diffusion(original):
    image, reconstruction, make, scalars = original
    log = scalars["kl_post_disc"]["opt0"]["log"]
    value = make()(reconstruction, image)
    assert value.total.item() == pytest.approx(log["train/nll_loss"], rel=1e-9)
    assert value.parts["rec"].item() == pytest.approx(log["train/rec_loss"], rel=1e-9)
    assert value.parts["log_scale"].item() == log["train/logvar"]


def test_equals_latent_diffusion_with_another_scale(original):
    image, reconstruction, make, scalars = original
    case = scalars["kl_post_disc_logvar0.7"]["opt0"]
    assert make(log_scale=0.7)(reconstruction, image).total.item() == pytest.approx(
        case["log"]["train/nll_loss"], rel=1e-9
    )
    learned = make(scale="learned", log_scale=0.7)
    (slope,) = torch.autograd.grad(learned(reconstruction, image).total, [learned.log_scale])
    assert slope.item() == pytest.approx(case["logvar_grad"], rel=1e-6)  # 0.7 was rounded to float32


def test_equals_latent_diffusion_with_sample_weights(original):
    image, reconstruction, make, scalars = original
    case = scalars["kl_post_disc_weights"]["opt0"]
    weight = torch.tensor([0.25, 2.0], dtype=torch.float64).view(2, 1, 1, 1)
    learned = make(scale="learned")
    value = learned(reconstruction, image, weight)
    assert value.unweighted.item() == pytest.approx(case["log"]["train/nll_loss"], rel=1e-9)
    others = 1e-6 * case["log"]["train/kl_loss"] + case["log"]["train/d_weight"] * case["log"]["train/g_loss"]
    assert value.total.item() == pytest.approx(case["log"]["train/total_loss"] - others, rel=1e-9)
    (slope,) = torch.autograd.grad(value.total, [learned.log_scale])
    assert slope.item() == pytest.approx(case["logvar_grad"], rel=1e-9)


def test_equals_latent_diffusion_without_lpips(original):
    image, reconstruction, make, scalars = original
    case = scalars["kl_no_perceptual_discfactor0"]["opt0"]
    value = make(distances=L1_ONLY, scale="learned")(reconstruction, image)
    assert value.total.item() == pytest.approx(case["log"]["train/nll_loss"], rel=1e-9)


def test_equals_taming_as_a_mean(golden, tmp_path):
    from safetensors.torch import save_file

    state, tensors = golden("ldm/vq_tiny_state.safetensors"), golden("ldm/vq_tiny_io.safetensors")
    prefix = "loss.perceptual_loss."
    weights = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    save_file(weights, tmp_path / "lpips.safetensors")
    extractor = Features(weights=str(tmp_path / "lpips.safetensors"), widths=(8, 8, 12, 12, 16))
    distances = {"l1": Distance(L1()), "lpips": Distance(LPIPS(extractor=extractor))}
    loss = ScaledNLL(distances=distances, likelihood="latent-diffusion").double()
    value = loss(tensors["recon"], tensors["image"])
    log = golden("ldm/scalars.json")["vq_post_disc"]["opt0"]["log"]
    assert value.total.item() == pytest.approx(log["train/nll_loss"], rel=1e-9)
    assert value.parts["lpips"].item() == pytest.approx(log["train/p_loss"], rel=1e-9)


def test_config_round_trip_keeps_nested_distances():
    config = {
        "type": "scaled_nll",
        "distances": {"l1": {"loss": {"type": "l1"}}},
        "scale": "learned",
        "log_scale": -1.0,
    }
    loss = build(config, Loss)
    assert loss.log_scale.item() == -1.0
    assert config_of(build(config_of(loss), Loss)) == config_of(loss)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distances": {}}, "expected at least one"),
        ({"distances": {"rec": Distance(L1())}}, "distances.rec: expected a name"),
        ({"distances": {"l1": Distance(L1(), weight=-1.0)}}, "distances.l1.weight=-1.0: expected >= 0"),
        ({"distances": L1_ONLY, "likelihood": "cauchy"}, "likelihood='cauchy': expected 'laplace'"),
        ({"distances": L1_ONLY, "scale": "free"}, "scale='free': expected 'fixed'"),
        ({"distances": L1_ONLY, "reduction": "sum"}, "reduction='sum': expected 'mean', 'batch_sum'"),
        ({"distances": L1_ONLY, "scale": "analytic", "log_scale": 1.0}, "log_scale=1.0: expected 0"),
    ],
)
def test_wrong_options_are_clear_errors(options, message):
    with pytest.raises(ValueError, match=message):
        ScaledNLL(**options)


def test_a_distance_that_gives_one_number_is_a_clear_error():
    class Scalar(Loss):
        def forward(self, prediction, target):
            return (prediction - target).abs().mean()

    y, x = pair()
    with pytest.raises(ValueError, match=r"distances\.scalar: Scalar gave one number for the batch"):
        ScaledNLL(distances={"scalar": Distance(Scalar())})(y, x)
