"""One traversal gives the gradients of the textbook form: the weighted sum of terms, lambda from the last layer."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from smalti.losses.hinge import HingeGenerator
from smalti.losses.l1 import L1
from smalti.losses.mse import MSE
from smalti.objectives import Adaptive, Clock, GeneratorPhase, Term
from smalti.outputs import LossValue
from tests.objectives.toys import (
    NOW,
    ToyCritic,
    assert_same_gradients,
    batch_of,
    generator_terms,
    gradients,
    phases,
)


def textbook(phase: GeneratorPhase, critic: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor | None]:
    """sum of weighted terms + lambda g on the attached reconstruction: (loss, lambda)."""
    model = phase.model
    output = model.training_forward(batch)
    images = output.reconstruction
    condition = [batch[phase.condition]] if phase.condition else []
    context = {
        "prediction": images,
        "target": batch["image"],
        "posterior": output.bottleneck.posterior,
        "codebooks": output.bottleneck.codebooks,
        "batch.weights": batch["weights"],
    }
    if any("logits_fake" in term.reads for term in phase.terms):
        context["logits_fake"] = critic(images, *condition).logits
    values = {term.name: term(context) for term in phase.terms}
    total, factor = torch.zeros((), dtype=images.dtype), None
    for term in phase.terms:
        loss = values[term.name].total
        if term.adaptive:
            named = [other for other in phase.terms if other.name in term.adaptive.reference]
            bare = [values[other.name].unweighted for other in named]
            reference = sum(
                other.weight * (values[other.name].total if value is None else value)
                for other, value in zip(named, bare, strict=True)
            )
            (a,) = torch.autograd.grad(reference, model.last_layer, retain_graph=True)
            (b,) = torch.autograd.grad(loss, model.last_layer, retain_graph=True)
            factor = (a.norm() / (b.norm() + 1e-4)).clamp(0, 1e4).detach()
            loss = factor * loss
        total = total + term.weight * loss
    return total, factor


def run_both(generator: GeneratorPhase, critic: ToyCritic) -> tuple[float, float]:
    """Compares every gradient of both forms; returns both totals."""
    batch = batch_of()
    state = {name: value.clone() for name, value in critic.state_dict().items()}
    surrogate, report = generator(batch, NOW)
    surrogate.backward()
    ours = gradients(generator)
    generator.zero_grad(set_to_none=True)
    critic.load_state_dict(state)
    total, _ = textbook(generator, critic, batch)
    total.backward()
    theirs = {name: value for name, value in gradients(generator).items() if value is not None}
    assert_same_gradients({name: ours[name] for name in theirs}, theirs, 1e-12)
    assert all(value is None or name in theirs or not value.any() for name, value in ours.items())
    return float(report.total), float(total.detach())


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("condition", ["condition", None])
def test_one_traversal_equals_the_textbook_form(adaptive: bool, weighted: bool, condition: str | None) -> None:
    terms = generator_terms(adaptive, weighted)
    if not weighted:  # the textbook's reference reads LossValue.unweighted, which is then the loss itself
        assert not terms[0].inputs
    generator, discriminator = phases(terms, condition)
    ours, theirs = run_both(generator, discriminator.network)
    assert ours == pytest.approx(theirs, rel=1e-13)


def test_the_learned_scale_gets_its_gradient() -> None:
    generator, _ = phases()
    surrogate, _ = generator(batch_of(), NOW)
    surrogate.backward()
    scale = dict(generator.named_parameters())["losses.nll.log_scale"]
    assert scale.grad is not None
    assert scale.grad.abs() > 1e-3


def test_encoder_and_decoder_are_traversed_once_and_the_critic_never_gets_a_gradient() -> None:
    generator, discriminator = phases()
    counts = {"encoder": 0, "decoder": 0, "last": 0}

    def count(name: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            counts[name] += 1

        return hook

    for name in counts:
        generator.network.get_submodule(name).register_full_backward_hook(count(name))
    batch = {**batch_of(), "image": batch_of()["image"].requires_grad_(True)}  # a hook needs an input with a gradient
    surrogate, _ = generator(batch, NOW)
    assert counts == {"encoder": 0, "decoder": 0, "last": 0}
    surrogate.backward()
    assert counts == {"encoder": 1, "decoder": 1, "last": 1}
    assert all(p.grad is None for p in discriminator.network.parameters())


def test_the_factor_is_the_ratio_of_norms_and_is_reported() -> None:
    generator, discriminator = phases()
    batch = batch_of()
    _, report = generator(batch, NOW)
    _, factor = textbook(generator, discriminator.network, batch)
    assert report.measures["gan/adaptive"].item() == pytest.approx(factor.item(), rel=1e-12)
    assert report.measures["gan/clamped"].item() == 0.0
    term = report.terms["gan"]
    assert float(term.weight) == pytest.approx(0.8 * factor.item(), rel=1e-12)
    assert float(term.weighted) == pytest.approx(0.8 * factor.item() * term.raw.item(), rel=1e-12)
    assert term.status == "active"


def test_sample_weights_do_not_change_the_reference() -> None:
    batch = batch_of()
    factors = []
    for scale in (1.0, 5.0):
        torch.manual_seed(1)
        generator, _ = phases()
        _, report = generator({**batch, "weights": batch["weights"] * scale}, NOW)
        factors.append(report.measures["gan/adaptive"].item())
    assert factors[0] == pytest.approx(factors[1], rel=1e-13)


def test_a_loss_without_an_unweighted_value_is_evaluated_again_without_its_weights() -> None:
    calls = []

    def weighted_l1(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        calls.append(weight is not None)
        error = (prediction - target).abs()
        return error.mean() if weight is None else (weight * error).mean()

    factors = []
    for inputs in ({"weight": "batch.weights"}, {}):
        torch.manual_seed(2)
        terms = [
            Term(name="pixel", loss=weighted_l1, inputs=inputs),
            Term(name="gan", loss=HingeGenerator(), adaptive=Adaptive(reference=["pixel"])),
        ]
        generator, _ = phases(terms)
        torch.manual_seed(3)
        factors.append(generator(batch_of(), NOW)[1].measures["gan/adaptive"].item())
    assert factors[0] == pytest.approx(factors[1], rel=1e-13)
    assert calls == [True, False, False]


def test_the_clamp_comes_before_the_weight_and_is_reported() -> None:
    terms = generator_terms()
    terms[-1] = Term(
        name="gan", loss=HingeGenerator(), weight=0.5, adaptive=Adaptive(reference=["nll", "mse"], clamp=1e-3)
    )
    _, report = phases(terms)[0](batch_of(), NOW)
    assert report.measures["gan/adaptive"].item() == 1e-3
    assert report.measures["gan/clamped"].item() == 1.0
    assert float(report.terms["gan"].weight) == pytest.approx(0.5e-3)


def test_measured_norms_are_those_of_the_two_sides_at_the_last_layer() -> None:
    generator, discriminator = phases()
    batch = batch_of()
    _, report = generator(batch, NOW, measure=True)
    model, measures = generator.model, report.measures
    images = model.training_forward(batch).reconstruction
    values = {"prediction": images, "target": batch["image"], "batch.weights": batch["weights"]}
    values["logits_fake"] = discriminator.network(images, batch["condition"]).logits
    sides = {"adversarial": ["gan"], "reconstruction": ["nll", "mse", "odd"]}
    for side, names in sides.items():
        loss = sum(t(values).total * float(report.terms[t.name].weight) for t in generator.terms if t.name in names)
        (gradient,) = torch.autograd.grad(loss, model.last_layer, retain_graph=True)
        assert measures[f"gradient_norm/{side}"].item() == pytest.approx(gradient.norm().item(), rel=1e-10)
    pull, hold = measures["gradient_norm/adversarial"], measures["gradient_norm/reconstruction"]
    assert measures["gradient_norm/adversarial_share"].item() == pytest.approx((pull / (pull + hold)).item())
    assert measures["logits_fake"].item() == pytest.approx(values["logits_fake"].detach().mean().item(), rel=1e-10)


def test_measuring_does_not_change_gradients() -> None:
    found = []
    batch = batch_of()
    for measure in (False, True):
        torch.manual_seed(4)
        generator, _ = phases()
        surrogate, _ = generator(batch, NOW, measure=measure)
        surrogate.backward()
        found.append(gradients(generator))
    assert_same_gradients(found[0], found[1], 1e-13)


def test_a_term_that_also_reads_another_output_gets_both_of_its_gradients() -> None:
    def entangled(prediction: Tensor, latent: Tensor, logits_fake: Tensor) -> Tensor:
        return (prediction.mean() * latent.square().mean()) + logits_fake.mean() * latent.mean()

    terms = [
        Term(name="mse", loss=MSE()),
        Term(name="mixed", loss=entangled, inputs={"latent": "bottleneck.latent"}, weight=3.0),
    ]
    generator, discriminator = phases(terms, None)
    batch = batch_of()
    surrogate, report = generator(batch, NOW)
    surrogate.backward()
    ours = gradients(generator)
    generator.zero_grad()
    output = generator.model.training_forward(batch)
    logits = discriminator.network(output.reconstruction).logits
    loss = MSE()(output.reconstruction, batch["image"]) + 3.0 * entangled(
        output.reconstruction, output.bottleneck.latent, logits
    )
    loss.backward()
    theirs = {name: value for name, value in gradients(generator).items() if value is not None}
    assert_same_gradients({name: ours[name] for name in theirs}, theirs, 1e-11)
    assert report.total.item() == pytest.approx(loss.item())


def test_the_weight_of_a_lossvalue_without_unweighted_is_its_total() -> None:
    value = LossValue(total=torch.ones(()))
    term = Term(name="a", loss=lambda prediction: prediction.sum())
    assert term.unweighted(value, {}) is value.total


def test_a_phase_with_only_waiting_terms_is_inactive() -> None:
    terms = [Term(name="a", loss=MSE(), start=5), Term(name="b", loss=L1(), role="log")]
    generator, _ = phases(terms, None)
    assert not generator.is_active(Clock(4, 0))
    assert generator.is_active(Clock(5, 0))
