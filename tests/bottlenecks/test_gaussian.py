"""The Gaussian bottleneck: the goldens' posterior, and when the latent is a sample."""

import pytest
import torch

from smalti.bottlenecks.gaussian import Gaussian
from smalti.bottlenecks.identity import Identity
from smalti.outputs import DiagonalGaussian


def close(actual, expected):
    torch.testing.assert_close(actual, expected, atol=1e-9, rtol=1e-9)


def test_posterior_equals_latent_diffusion(golden):
    cases = golden("ldm/gaussian_cases.safetensors")
    posterior = DiagonalGaussian.from_moments(cases["params"])
    other = DiagonalGaussian.from_moments(cases["params_other"])
    for name in ("mean", "logvar", "std", "var"):
        close(getattr(posterior, name), cases[name])
    assert posterior.logvar.min() == -30.0
    assert posterior.logvar.max() == 20.0
    close(posterior.kl(), cases["kl"])
    close(posterior.kl(other), cases["kl_other"])
    close(posterior.nll(cases["sample"]), cases["nll"])
    # The original sums over dims (1, 2), which leaves the last axis.
    close(posterior.nll(cases["sample"], dims=(1, 2)), cases["nll_dims_1_2"])


def test_a_deterministic_posterior_is_the_mode(golden):
    """The original's flag sets the deviation to 0 and returns a KL of one element; ours is the bottleneck's choice."""
    cases = golden("ldm/gaussian_cases.safetensors")
    assert (cases["det_std"] == 0.0).all()
    bottleneck = Gaussian(in_channels=8, latent_channels=4, sample="never").double()
    bottleneck.projection.weight.data = torch.eye(8, dtype=torch.float64)[..., None, None]
    bottleneck.projection.bias.data.zero_()
    output = bottleneck(cases["params"])
    close(output.latent, cases["mean"])
    assert output.posterior.kl().shape == (2,)


@pytest.mark.parametrize(
    ("sample", "training", "drawn"),
    [
        ("training", True, True),
        ("training", False, False),
        ("always", False, True),
        ("always", True, True),
        ("never", True, False),
        ("never", False, False),
    ],
)
def test_sample_says_when_the_latent_is_a_sample(sample, training, drawn):
    bottleneck = Gaussian(in_channels=3, latent_channels=2, sample=sample).train(training)
    features, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 2, 4, 4)
    output = bottleneck(features, noise)
    expected = output.posterior.sample(noise) if drawn else output.posterior.mode()
    assert torch.equal(output.latent, expected)
    assert torch.equal(bottleneck(features).latent, expected) is not drawn


def test_moments_do_not_overflow_in_half_precision():
    bottleneck = Gaussian(in_channels=2, latent_channels=1).half()
    bottleneck.projection.weight.data.fill_(20.0)
    posterior = bottleneck(torch.full((1, 2, 1, 1), 20.0).half()).posterior
    assert posterior.var.isfinite().all()


def test_unknown_sample_is_an_error():
    with pytest.raises(ValueError, match="sample='mode': expected 'training', 'always' or 'never'"):
        Gaussian(in_channels=2, latent_channels=1, sample="mode")


def test_identity_passes_features_on_unless_the_width_changes():
    features = torch.randn(1, 4, 2, 3)
    assert Identity(in_channels=4)(features).latent is features
    narrow = Identity(in_channels=4, latent_channels=2)
    assert narrow.latent_channels == 2
    assert torch.equal(narrow(features).latent, narrow.projection(features))
