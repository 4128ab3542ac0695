"""Gumbel softmax: what is drawn, how often, with which gradient, and how the temperature falls."""

import math

import pytest
import torch
from torch.nn import functional as F

from smalti.losses.categorical_kl import CategoricalKL, categorical_kl
from smalti.losses.entropy import entropy_terms
from smalti.quantizers.gumbel import Anneal, Gumbel


def quantizer(size: int = 7, channels: int = 3, **options: object) -> Gumbel:
    torch.manual_seed(0)
    return Gumbel(size=size, channels=channels, **options).double()  # type: ignore[arg-type]


def latents(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def logits_of(made: Gumbel, z: torch.Tensor) -> torch.Tensor:
    """(N, K), as the 1x1 convolution of the originals gives them."""
    found = F.conv2d(z, made.logits.weight[:, :, None, None], made.logits.bias)
    return found.permute(0, 2, 3, 1).flatten(0, 2)


def test_codes_are_drawn_as_often_as_their_logits_say() -> None:
    made = quantizer(size=5)
    z = latents(1, 3, 1, 1)
    share = logits_of(made, z).softmax(dim=1)[0]
    indices = made(z.expand(1, 3, 200, 200)).indices
    found = indices.flatten().bincount(minlength=5) / indices.numel()
    # five standard deviations; neither the temperature nor `hard` changes what is drawn
    assert ((found - share).abs() <= 5 * (share * (1 - share) / indices.numel()).sqrt()).all()


@pytest.mark.parametrize("hard", [True, False])
def test_the_gradient_is_that_of_the_mixture_at_the_temperature(hard: bool) -> None:
    made = quantizer(hard=hard, temperature=Anneal(start=0.7, end=0.7))
    z, weights = latents(2, 3, 4, 5).requires_grad_(), latents(2, 3, 4, 5).flip(0)
    torch.manual_seed(5)
    record = made(z)
    parameters = [z, made.logits.weight, made.logits.bias, made.weight]
    ours = torch.autograd.grad((record.latent * weights).sum(), parameters)

    torch.manual_seed(5)
    noise = -torch.empty(40, 7, dtype=torch.float64).exponential_().log()
    share = ((logits_of(made, z) + noise) / 0.7).softmax(dim=1)
    one_hot = F.one_hot(share.argmax(dim=1), 7).double()
    chosen = one_hot + share - share.detach() if hard else share
    latent = (chosen @ made.weight).view(2, 4, 5, 3).permute(0, 3, 1, 2)
    torch.testing.assert_close(record.latent, latent)
    theirs = torch.autograd.grad((latent * weights).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_out_of_training_the_most_likely_code_is_taken_each_time() -> None:
    made, z = quantizer(hard=False).eval(), latents(2, 3, 4, 5)
    record = made(z)
    assert torch.equal(record.indices.flatten(), logits_of(made, z).argmax(dim=1))
    assert torch.equal(record.latent, made.lookup(record.indices))
    assert torch.equal(record.latent, made(z).latent)


def test_the_temperature_falls_by_a_cosine_with_updates_and_stays() -> None:
    made = quantizer(temperature=Anneal(start=1.0, end=0.25, updates=4))
    record = made(latents(1, 3, 2, 2))
    found = []
    for _ in range(6):
        found.append(float(made.tau()))
        made.update([record])
    expected = [0.25 + 0.375 * (1 + math.cos(math.pi * min(step / 4, 1))) for step in range(6)]
    assert found == pytest.approx(expected, abs=1e-6)
    again = quantizer(temperature=Anneal(start=1.0, end=0.25, updates=4))
    again.load_state_dict(made.state_dict())
    assert float(again.tau()) == float(made.tau())


def test_published_temperatures_are_the_default() -> None:
    made = quantizer()
    assert float(made.tau()) == 1.0
    made.updates.fill_(75_000)
    assert float(made.tau()) == pytest.approx((1 + 1 / 16) / 2)
    made.updates.fill_(150_000)
    assert float(made.tau()) == 1 / 16


def test_kl_and_entropies_are_those_of_the_logits_without_noise() -> None:
    made = quantizer()
    z = latents(2, 3, 4, 5).requires_grad_()
    record = made(z)
    share = logits_of(made, z).softmax(dim=1)
    expected = (share * (share * 7).log()).sum(dim=1).mean()
    parameters = [z, made.logits.weight, made.logits.bias]
    torch.testing.assert_close(categorical_kl(record), expected)
    torch.testing.assert_close(CategoricalKL()({"one": record, "two": record}), 2 * expected)
    for one, other in zip(
        torch.autograd.grad(categorical_kl(record), parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)
    share = (logits_of(made, z) / 0.5).softmax(dim=1)
    sample, average = entropy_terms(record, temperature=0.5, eps=0.0)
    torch.testing.assert_close(sample, -(share * share.log()).sum(dim=1).mean())
    torch.testing.assert_close(average, -(share.mean(dim=0) * share.mean(dim=0).log()).sum())


@pytest.mark.parametrize("options", [{"start": 0.0}, {"end": -1.0}, {"updates": 0}])
def test_impossible_temperatures_are_errors(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"temperature=Anneal.*expected positive temperatures"):
        quantizer(temperature=Anneal(**options))  # type: ignore[arg-type]
