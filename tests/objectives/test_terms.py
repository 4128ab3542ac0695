"""Terms: how they are called, what they refuse, when they act."""

import functools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from smalti.losses.hinge import HingeDiscriminator
from smalti.losses.mse import MSE
from smalti.objectives import Adaptive, Clock, DiscriminatorPhase, Schedule, Term, TermOptions
from smalti.objectives.term import loss_arguments
from smalti.outputs import LossValue
from smalti.registry import UserError
from tests.objectives.toys import NOW, ToyCritic, ToyModel, batch_of, generator_terms, gradients, phases


def scaled(prediction: Tensor, target: Tensor, weight: Tensor | None = None, *, power: float = 1.0) -> Tensor:
    return ((prediction - target).abs() ** power).mean()


ONE, ZERO = torch.ones(2), torch.zeros(2)


def test_a_term_takes_one_mapping_or_named_tensors() -> None:
    term = Term(name="pixel", loss=scaled, inputs={"target": "batch.clean"})
    assert term({"prediction": ONE, "batch.clean": ZERO, "unused": ZERO}).total == 1.0
    assert term(prediction=ONE, target=ZERO).total == 1.0


@pytest.mark.parametrize(
    ("mapping", "named", "message"),
    [
        ({"prediction": ONE, "target": ZERO}, {"prediction": ONE}, "got both"),
        (None, {}, "got neither"),
        ({"prediction": ONE}, {}, "no value for 'target'"),
        (None, {"prediction": ONE}, "no value for 'target'"),
        (None, {"prediction": ONE, "target": ZERO, "wieght": ONE}, "unknown input 'wieght'; did you mean 'weight'"),
    ],
)
def test_a_wrong_call_is_one_clear_error(mapping: object, named: dict[str, Tensor], message: str) -> None:
    with pytest.raises(UserError, match=f"term 'pixel'.*{message}"):
        Term(name="pixel", loss=scaled)(mapping, **named)


@pytest.mark.parametrize(
    ("result", "message"), [(None, "returned None"), (1.5, "returned 1.5"), (ONE, r"returned shape \(2,\)")]
)
def test_a_result_that_is_no_scalar_is_one_clear_error(result: object, message: str) -> None:
    with pytest.raises(UserError, match=f"term 'odd'.*{message}"):
        Term(name="odd", loss=lambda prediction: result)(prediction=ONE)


def test_optional_inputs_are_bound_only_when_mapped() -> None:
    assert "weight" not in Term(name="a", loss=scaled).bindings
    assert Term(name="a", loss=scaled, inputs={"weight": "batch.w"}).bindings["weight"] == "batch.w"


def test_inputs_are_read_from_modules_functions_classes_and_partials() -> None:
    expected = {"prediction": True, "target": True, "weight": False}
    assert loss_arguments(scaled) == expected
    assert loss_arguments(functools.partial(scaled, power=2.0)) == expected
    assert loss_arguments(nn.MSELoss) == loss_arguments(nn.MSELoss()) == {"input": True, "target": True}
    assert loss_arguments(MSE) == loss_arguments(MSE()) == expected
    with pytest.raises(UserError, match="cannot read the arguments"):
        loss_arguments(max)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -1}, "start=-1"),
        ({"every": 0}, "every=0"),
        ({"ramp": -3}, "ramp=-3"),
        ({"shape": "square"}, "shape='square'"),
        ({"role": "print"}, "role='print'"),
        ({"merge": "mean"}, "merge='mean'"),
        ({"weight": float("nan")}, "weight=nan"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TermOptions(**options)


def test_options_bind_to_a_term() -> None:
    term = TermOptions(weight=2.0, inputs={"target": "batch.clean"}).bind("pixel", scaled)
    assert (term.name, term.weight, term.bindings["target"]) == ("pixel", 2.0, "batch.clean")


@given(st.integers(0, 50), st.integers(0, 20), st.integers(0, 20), st.sampled_from(["linear", "cosine"]))
def test_weights_rise_from_nothing_to_all(step: int, start: int, ramp: int, shape: str) -> None:
    schedule = Schedule(weight=3.0, start=start, ramp=ramp, shape=shape)
    now, later = schedule.at(Clock(step)), schedule.at(Clock(step + 1))
    assert 0.0 <= now <= later <= 3.0
    assert now == 0.0 if step < start else True
    assert now == 3.0 if step >= start + ramp else now < 3.0
    assert schedule.is_waiting(Clock(step)) == (step < start)


def test_half_of_a_ramp_is_half_of_the_weight() -> None:
    for shape in ("linear", "cosine"):
        assert Schedule(weight=2.0, start=10, ramp=8, shape=shape).at(Clock(14)) == pytest.approx(1.0)


@pytest.mark.parametrize(("lazy_scale", "weight"), [(True, 8.0), (False, 2.0)])
def test_lazy_terms_count_the_updates_of_their_own_phase(lazy_scale: bool, weight: float) -> None:
    """With two discriminator updates in each generator update, every 4th update is every 2nd step."""
    calls = []

    def penalty(logits_real: Tensor) -> Tensor:
        calls.append(1)
        return logits_real.square().mean()

    terms = [
        Term(name="gan", loss=HingeDiscriminator()),
        Term(name="lazy", loss=penalty, weight=2.0, every=4, lazy_scale=lazy_scale),
    ]
    model, critic = ToyModel().double(), ToyCritic().double()
    phase = DiscriminatorPhase(critic, terms, model=model)
    batch, found = batch_of(), []
    for step in range(4):
        for inner in range(2):
            clock = Clock(step, 2 * step + inner)
            assert phase.is_active(clock)
            report = phase(batch, clock)[1]
            found.append((clock.updates, report.terms["lazy"].status, report.terms["lazy"].weight))
    expected = [(n, "active", weight) if n % 4 == 0 else (n, "skipped", 0.0) for n in range(8)]
    assert found == expected
    assert len(calls) == 2


def test_logged_terms_change_no_gradient_and_no_total() -> None:
    found = []
    batch = batch_of()
    for extra in ([], [Term(name="seen", loss=lambda logits_fake: logits_fake.sum(), weight=9.0, role="log")]):
        torch.manual_seed(5)
        generator, _ = phases([*extra, *generator_terms()])
        surrogate, report = generator(batch, NOW)
        surrogate.backward()
        found.append((gradients(generator), report))
    assert all(torch.equal(found[0][0][name], value) for name, value in found[1][0].items() if value is not None)
    assert torch.equal(found[0][1].total, found[1][1].total)
    seen = found[1][1].terms["seen"]
    assert seen.raw is not None
    assert (seen.weighted, seen.weight, seen.status) == (None, None, "active")


def test_merged_terms_add_up_under_one_name() -> None:
    terms = [
        Term(name="pixel", loss=MSE(), weight=2.0),
        Term(name="pixel", loss=nn.L1Loss(), inputs={"input": "prediction"}, weight=3.0, merge="sum"),
    ]
    generator, _ = phases(terms, None)
    batch = batch_of()
    surrogate, report = generator(batch, NOW)
    surrogate.backward()
    assert list(report.terms) == ["pixel"]
    first, second = (term({"prediction": report.fake, "target": batch["image"]}) for term in terms)
    term = report.terms["pixel"]
    assert term.raw.item() == pytest.approx((first.total + second.total).item())
    assert report.total.item() == pytest.approx((2.0 * first.total + 3.0 * second.total).item())
    assert float(term.weight) == pytest.approx((report.total / term.raw).item())


def test_two_terms_of_one_name_are_refused() -> None:
    terms = [Term(name="pixel", loss=MSE()), Term(name="pixel", loss=MSE())]
    with pytest.raises(ValueError, match="two terms are called 'pixel'"):
        phases(terms, None)


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "a b"])
def test_names_must_be_usable_in_a_log(name: str) -> None:
    with pytest.raises(ValueError, match="name="):
        Term(name=name, loss=MSE())


def test_waiting_terms_report_that_and_compute_nothing() -> None:
    terms = [Term(name="pixel", loss=MSE()), Term(name="later", loss=lambda prediction: 1 / 0, start=11)]
    _, report = phases(terms, None)[0](batch_of(), NOW)
    later = report.terms["later"]
    assert (later.status, later.raw, later.weight, later.weighted) == ("waiting", None, 0.0, None)
    assert report.statuses == {"pixel": "active", "later": "waiting"}


def test_a_flat_report_has_a_name_for_every_number() -> None:
    generator, _ = phases()
    flat = generator(batch_of(), NOW, measure=True)[1].flatten()
    assert {"total", "nll/raw", "nll/weight", "nll/weighted", "nll/l1", "nll/log_scale", "gan/adaptive"} <= set(flat)
    assert {"gan/clamped", "gan/skipped", "gradient_norm/adversarial_share", "logits_fake"} <= set(flat)
    weighted = sum(float(value) for name, value in flat.items() if name.endswith("/weighted"))
    assert weighted == pytest.approx(float(flat["total"]))


def test_adaptive_options_are_checked() -> None:
    for options, message in (
        ({"reference": []}, "reference="),
        ({"reference": "pixel"}, "reference='pixel'"),
        ({"reference": ["a"], "eps": -1.0}, "eps=-1.0"),
        ({"reference": ["a"], "clamp": 0.0}, "clamp=0.0"),
        ({"reference": ["a"], "reduce": "sum"}, "reduce='sum'"),
    ):
        with pytest.raises(ValueError, match=message):
            Adaptive(**options)


def test_a_loss_value_passes_through() -> None:
    value = LossValue(total=torch.ones(()), parts={"a": torch.zeros(())})
    assert Term(name="a", loss=lambda prediction: value)(prediction=ONE) is value
