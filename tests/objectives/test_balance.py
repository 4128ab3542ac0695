"""The adaptive weight at its limits: not finite, frozen, not computed, over several processes."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from smalti.losses.hinge import HingeGenerator
from smalti.losses.mse import MSE
from smalti.objectives import Adaptive, Clock, DiscriminatorPhase, GeneratorPhase, Term
from smalti.objectives import balance as module
from smalti.objectives.balance import balance
from smalti.registry import UserError
from tests.objectives.toys import (
    NOW,
    ToyCritic,
    ToyModel,
    assert_same_gradients,
    batch_of,
    discriminator_terms,
    generator_terms,
    gradients,
    phases,
)

PIXEL = Term(name="pixel", loss=MSE())


def poisoned(logits_fake: Tensor) -> Tensor:
    """0, with a gradient of nan."""
    return (0.0 * logits_fake).sqrt().sum()


def with_adversary(loss: object, **options: object) -> list[Term]:
    return [PIXEL, Term(name="gan", loss=loss, adaptive=Adaptive(reference=["pixel"], **options))]


def test_a_factor_that_is_not_finite_takes_the_term_out_of_the_step() -> None:
    batch, found = batch_of(), []
    for terms in ([PIXEL], with_adversary(poisoned)):
        torch.manual_seed(1)
        generator, _ = phases(terms)
        surrogate, report = generator(batch, NOW, measure=True)
        surrogate.backward()
        found.append((gradients(generator), report))
    alone, poisoned_run = found
    theirs = {name: value for name, value in alone[0].items() if value is not None}
    assert_same_gradients({name: poisoned_run[0][name] for name in theirs}, theirs, 0.0)
    report = poisoned_run[1]
    assert report.terms["gan"].status == "skipped"
    assert report.measures["gan/skipped"] == 1.0
    assert report.measures["gan/adaptive"] == 0.0
    assert report.measures["gan/clamped"] == 0.0
    assert torch.equal(report.total, alone[1].total)
    assert report.measures["gradient_norm/adversarial_share"] == 0.0


def test_a_frozen_last_layer_is_refused_at_once() -> None:
    model = ToyModel()
    model.last.weight.requires_grad_(False)
    with pytest.raises(UserError, match="last layer is frozen"):
        GeneratorPhase(model, with_adversary(HingeGenerator()), discriminator=ToyCritic())
    generator, _ = phases(with_adversary(HingeGenerator()))
    generator.model.last_layer.requires_grad_(False)
    with pytest.raises(UserError, match="last layer is frozen"):
        generator(batch_of(), NOW)


def test_a_last_layer_outside_the_pass_is_an_error_and_not_a_zero() -> None:
    class Misled(ToyModel):
        @property
        def last_layer(self) -> nn.Parameter:
            return self.elsewhere

        def __init__(self) -> None:
            super().__init__()
            self.elsewhere = nn.Parameter(torch.zeros(1))

    phase = GeneratorPhase(Misled().double(), with_adversary(HingeGenerator()), discriminator=ToyCritic().double())
    with pytest.raises(UserError, match="took no part"):
        phase(batch_of(), NOW)


def test_errors_of_the_device_pass_through() -> None:
    class Exhausted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.mean()

        @staticmethod
        def backward(ctx: object, gradient: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    def failing(logits_fake: Tensor) -> Tensor:
        value: Tensor = Exhausted.apply(logits_fake)
        return value

    generator, _ = phases(with_adversary(failing))
    with pytest.raises(RuntimeError, match="out of memory"):
        generator(batch_of(), NOW)


def test_in_evaluation_the_factor_is_not_computed_and_the_total_says_so() -> None:
    generator, _ = phases()
    generator.eval()
    with torch.no_grad():
        value, report = generator(batch_of(), NOW, measure=True)
    gan = report.terms["gan"]
    assert (gan.status, gan.weight, gan.weighted) == ("not computed", None, None)
    assert gan.raw is not None
    flat = report.flatten()
    assert "gan/raw" in flat
    assert "gan/weight" not in flat
    rest = sum(term.weighted for name, term in report.terms.items() if name != "gan")
    assert value.item() == pytest.approx(rest.item())


def test_while_the_term_waits_nothing_is_balanced(monkeypatch: pytest.MonkeyPatch) -> None:
    terms = [PIXEL, Term(name="gan", loss=HingeGenerator(), start=11, adaptive=Adaptive(reference=["pixel"]))]
    generator, _ = phases(terms)
    monkeypatch.setattr(torch.autograd, "grad", counting(torch.autograd.grad, calls := []))
    generator(batch_of(), NOW)
    assert len(calls) == 1  # pixel at the images
    generator(batch_of(), Clock(11, 0))
    assert len(calls) == 1 + 4  # pixel and gan at the images, each through the last layer


def counting(function: object, calls: list[int]) -> object:
    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return function(*args, **kwargs)

    return counted


def test_norms_are_taken_in_single_precision_or_better() -> None:
    options = Adaptive(reference=["a"], eps=0.0)
    big = torch.full((64,), 1e3, dtype=torch.bfloat16)  # its squares do not fit a half-precision sum
    assert balance(big, big, options).factor.dtype == torch.float32
    assert balance(big, big, options).factor == pytest.approx(1.0)
    assert balance(big.double(), big.double(), options).factor.dtype == torch.float64


@pytest.mark.parametrize(
    ("reference", "adversarial", "factor", "skipped"),
    [(0.0, 0.0, 0.0, False), (1.0, 0.0, 1e4, False), (math.inf, 1.0, 0.0, True), (1.0, math.nan, 0.0, True)],
)
def test_degenerate_norms(reference: float, adversarial: float, factor: float, skipped: bool) -> None:
    options = Adaptive(reference=["a"], eps=0.0)
    found = balance(torch.tensor([reference]), torch.tensor([adversarial]), options)
    assert found.factor == factor
    assert bool(found.skipped) is skipped
    assert bool(found.clamped) is (factor == 1e4)


@pytest.mark.parametrize("reduce", ["mean", "local"])
def test_gathered_gradients_give_the_factor_of_the_whole_batch(reduce: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with half of the batch each; a critic without batch statistics."""
    batch = batch_of(4)
    halves = [{name: column[i : i + 2] for name, column in batch.items()} for i in (0, 2)]
    critic = ToyCritic(2, norm=False)
    generator, _ = phases(with_adversary(HingeGenerator(), reduce=reduce), critic=critic)
    whole = generator(batch, NOW)[1].measures["gan/adaptive"]
    sent: list[Tensor] = []
    monkeypatch.setattr(module, "all_reduce_mean", lambda tensor: sent.append(tensor) or tensor)
    local = [generator(half, NOW)[1].measures["gan/adaptive"] for half in halves]
    if reduce == "local":
        assert not sent
        assert not torch.allclose(local[0], local[1], rtol=1e-6)
        return
    means = [(sent[i] + sent[i + 2]) / 2 for i in (0, 1)]
    monkeypatch.setattr(module, "all_reduce_mean", lambda tensor: means.pop(0))
    assert torch.allclose(generator(halves[1], NOW)[1].measures["gan/adaptive"], whole, rtol=1e-12)


@pytest.fixture
def process_group(tmp_path: Path) -> object:
    distributed.init_process_group(
        "gloo", store=distributed.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
def test_wrapped_for_data_parallel_training_the_gradients_are_the_same() -> None:
    """Also for a parameter that only some steps use, and for both phases in turn."""
    lazy = Term(name="lazy", loss=lambda heads: heads.square().mean(), inputs={"heads": "heads.toy"}, every=2)
    batch, found = batch_of(), []
    for wrap in (lambda phase: phase, lambda phase: DistributedDataParallel(phase, find_unused_parameters=True)):
        torch.manual_seed(3)
        generator, discriminator = phases([*generator_terms(), lazy])
        wrapped = wrap(generator), wrap(discriminator)
        for step in range(3):
            surrogate, report = wrapped[0](batch, Clock(10 + step, step), measure=True)
            surrogate.backward()
            loss, _ = wrapped[1](batch, Clock(10 + step, step), fake=report.fake)
            loss.backward()
        found.append({**gradients(generator), **{f"d.{k}": v for k, v in gradients(discriminator).items()}})
    assert_same_gradients(found[1], found[0], 1e-14)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        (
            [PIXEL, Term(name="gan", loss=HingeGenerator(), adaptive=Adaptive(reference=["pixl"]))],
            "unknown term 'pixl'",
        ),
        ([Term(name="gan", loss=HingeGenerator(), adaptive=Adaptive(reference=["gan"]))], "is the term itself"),
        ([PIXEL, Term(name="a", loss=MSE(), adaptive=Adaptive(reference=["pixel"]))], "does not listen"),
    ],
)
def test_a_phase_refuses_a_balance_that_cannot_be(terms: list[Term], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorPhase(ToyModel(), terms, discriminator=ToyCritic())


def test_phases_refuse_what_they_cannot_play() -> None:
    with pytest.raises(ValueError, match="needs a discriminator"):
        GeneratorPhase(ToyModel(), [Term(name="gan", loss=HingeGenerator())])
    with pytest.raises(ValueError, match="belongs to the generator"):
        DiscriminatorPhase(
            ToyCritic(),
            [Term(name="gan", loss=HingeGenerator(), adaptive=Adaptive(reference=["a"])), *discriminator_terms()][:1],
            model=ToyModel(),
        )
    with pytest.raises(ValueError, match="expected a loss, got the class MSE"):
        GeneratorPhase(ToyModel(), [Term(name="pixel", loss=MSE)])
    with pytest.raises(ValueError, match="taken by torch"):
        GeneratorPhase(ToyModel(), [Term(name="type", loss=MSE())])
