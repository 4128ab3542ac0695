"""What the engine may rely on, of both phases alike."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smalti.objectives import Clock, DiscriminatorPhase, GeneratorPhase, LossReport, Phase, Term
from smalti.objectives.values import map_tensors
from smalti.outputs import DiscriminatorOutput
from tests.objectives.toys import NOW, ToyCritic, ToyModel, batch_of, discriminator_terms, generator_terms, phases

PLAYERS = ["generator", "discriminator"]


def pair(player: str) -> tuple[Phase, nn.Module]:
    """A phase and the other network."""
    generator, discriminator = phases()
    if player == "generator":
        return generator, discriminator.network
    return discriminator, generator.network


def tensors_in(value: Any) -> Iterator[Tensor]:
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor) or tensor, value)
    return iter(found)


@pytest.mark.parametrize("player", PLAYERS)
def test_the_surrogate_is_the_only_thing_with_a_graph(player: str) -> None:
    phase, _ = pair(player)
    surrogate, report = phase(batch_of(), NOW)
    assert surrogate.shape == ()
    assert surrogate.requires_grad
    assert isinstance(report, LossReport)
    assert not any(tensor.requires_grad for tensor in tensors_in(report))
    assert report.total.dtype == torch.float64


@pytest.mark.parametrize("player", PLAYERS)
def test_only_its_own_network_and_terms_are_registered(player: str) -> None:
    phase, other = pair(player)
    own = {id(p) for p in phase.parameters()}
    assert own.isdisjoint(id(p) for p in other.parameters())
    assert {name.split(".")[0] for name in phase.state_dict()} <= {"network", "losses"}
    assert {id(p) for p in phase.network.parameters()} <= own
    assert phase.name == player


@pytest.mark.parametrize("player", PLAYERS)
def test_no_gradient_leaks_to_the_other_network(player: str) -> None:
    phase, other = pair(player)
    for fake in (None, torch.rand(3, 3, 8, 8, dtype=torch.float64, requires_grad=True)):
        surrogate, _ = phase(batch_of(), NOW, fake=fake)
        surrogate.backward()
        assert all(p.grad is None for p in other.parameters())
        assert all(p.requires_grad for p in other.parameters())
        assert fake is None or fake.grad is None
    assert any(p.grad is not None for p in phase.network.parameters())


def test_the_phases_share_images_and_never_a_graph() -> None:
    generator, discriminator = phases()
    batch = batch_of()
    surrogate, report = generator(batch, NOW)
    loss, _ = discriminator(batch, NOW, fake=report.fake)
    loss.backward()
    assert all(p.grad is None for p in generator.parameters())
    surrogate.backward()  # its graph is whole
    assert all(p.grad is not None for p in generator.network.parameters())


@pytest.mark.parametrize("player", PLAYERS)
def test_without_autograd_the_same_call_gives_the_total(player: str) -> None:
    phase, _ = pair(player)
    phase.eval()
    with torch.no_grad():
        value, report = phase(batch_of(), NOW)
    assert not value.requires_grad
    assert torch.equal(value, report.total)
    weighted = [term.weighted for term in report.terms.values() if term.weighted is not None]
    assert report.total.item() == pytest.approx(float(sum(weighted)))


@pytest.mark.parametrize("player", PLAYERS)
def test_a_forward_pass_changes_no_state_but_statistics(player: str) -> None:
    phase, other = pair(player)
    before = copy.deepcopy({**phase.state_dict(), **other.state_dict()})
    phase(batch_of(), NOW)
    after = {**phase.state_dict(), **other.state_dict()}
    changed = {name.rpartition(".")[2] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("player", PLAYERS)
def test_evaluation_mode_reaches_the_other_network_for_the_pass_only(player: str) -> None:
    phase, other = pair(player)
    before = copy.deepcopy({**phase.state_dict(), **other.state_dict()})
    phase.eval()
    assert other.training
    phase(batch_of(), NOW)
    after = {**phase.state_dict(), **other.state_dict()}
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training for module in other.modules())


def test_a_failing_term_leaves_the_critic_trainable_and_in_its_mode() -> None:
    terms = [Term(name="broken", loss=lambda logits_fake: 1 / 0)]
    generator, discriminator = phases(terms)
    generator.eval()
    with pytest.raises(ZeroDivisionError):
        generator(batch_of(), NOW)
    assert all(p.requires_grad for p in discriminator.network.parameters())
    assert discriminator.network.training


def test_parameters_that_were_frozen_before_stay_frozen() -> None:
    generator, discriminator = phases()
    discriminator.network.first.weight.requires_grad_(False)
    generator(batch_of(), NOW)
    frozen = {name for name, p in discriminator.network.named_parameters() if not p.requires_grad}
    assert frozen == {"first.weight"}


def test_the_critic_is_not_asked_while_all_who_ask_are_waiting() -> None:
    gan = generator_terms()[-1]
    waiting = [*generator_terms()[:-1], Term(name="gan", loss=gan.loss, adaptive=gan.adaptive, start=11)]
    generator, discriminator = phases(waiting)
    critic = discriminator.network
    report = generator(batch_of(), NOW, measure=True)[1]
    assert critic.calls == 0
    assert report.terms["gan"].status == "waiting"
    assert "gan/adaptive" not in report.measures
    assert int(critic.norm.num_batches_tracked) == 0
    report = generator(batch_of(), Clock(11, 0))[1]
    assert critic.calls == 1
    assert report.terms["gan"].status == "active"


def test_values_that_several_terms_ask_for_are_computed_once() -> None:
    terms = [
        Term(name=name, loss=lambda logits_fake, features_fake: logits_fake.mean() + features_fake[0].mean())
        for name in ("a", "b", "c")
    ]
    generator, discriminator = phases(terms)
    generator(batch_of(), NOW)
    assert discriminator.network.calls == 1


def test_the_critic_sees_real_images_before_made_ones_and_apart() -> None:
    _, discriminator = phases()
    seen: list[Tensor] = []
    discriminator.network.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = batch_of()
    backwards = [Term(name="gan", loss=lambda logits_fake, logits_real: logits_fake.mean() - logits_real.mean())]
    for terms in (discriminator_terms(), backwards):
        phase = DiscriminatorPhase(discriminator.network, terms, model=discriminator.model, condition="condition")
        seen.clear()
        phase(batch, NOW, fake=torch.zeros_like(batch["image"]))
        assert [bool(images.any()) for images in seen] == [True, False]


def test_a_discriminator_pass_without_images_runs_the_model_unless_nobody_asks() -> None:
    generator, discriminator = phases()
    batch = batch_of()
    seen: list[int] = []
    generator.network.encoder.register_forward_hook(lambda *_: seen.append(1))
    expected = generator.model.training_forward(batch).reconstruction
    _, report = discriminator(batch, NOW)
    assert torch.equal(report.fake, expected)
    assert len(seen) == 2
    penalty = [Term(name="penalty", loss=lambda logits_real: logits_real.square().mean())]
    phase = DiscriminatorPhase(discriminator.network, penalty, model=generator.network, condition="condition")
    assert phase(batch, NOW)[1].fake is None
    assert len(seen) == 2


def test_mean_logits_are_measured() -> None:
    _, discriminator = phases()
    measures = discriminator(batch_of(), NOW)[1].measures
    assert set(measures) == {"logits_real", "logits_fake"}


@pytest.mark.parametrize("player", PLAYERS)
def test_a_pass_where_no_term_has_its_turn_can_still_go_backward(player: str) -> None:
    loss = {"generator": lambda prediction: prediction.mean(), "discriminator": lambda logits_real: logits_real.mean()}
    lazy = [Term(name="lazy", loss=loss[player], every=2)]
    model, critic = ToyModel().double(), ToyCritic().double()
    phase: Phase
    if player == "generator":
        phase = GeneratorPhase(model, lazy, discriminator=critic)
    else:
        phase = DiscriminatorPhase(critic, lazy, model=model)
    surrogate, report = phase(batch_of(), Clock(0, 1))
    surrogate.backward()
    assert report.total == 0.0
    assert all(p.grad is None or not p.grad.any() for p in phase.parameters())


def test_updates_get_the_detached_records_of_all_micro_batches() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
            return (prediction - target).square().mean()

        def update(self, records: Any) -> None:
            self.seen = list(records)

    loss = Counting()
    generator, _ = phases([Term(name="counting", loss=loss), *generator_terms()])
    reports = [generator(batch_of(), NOW)[1] for _ in range(2)]
    assert not loss.seen
    generator.update(reports)
    assert [set(record) for record in loss.seen] == [{"prediction", "target"}] * 2
    assert not any(tensor.requires_grad for tensor in tensors_in(loss.seen))
    (outputs,) = generator.network.updates
    assert [output.reconstruction.shape for output in outputs] == [(3, 3, 8, 8)] * 2


def test_terms_run_in_full_precision_and_the_critic_may_not() -> None:
    seen: dict[str, torch.dtype] = {}

    class Watched(ToyCritic):
        def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
            output = super().forward(images, condition)
            seen["critic"] = output.logits.dtype
            return output

    def watch(prediction: Tensor, logits_fake: Tensor, features_fake: Any) -> Tensor:
        seen["term"] = (prediction.flatten() @ prediction.flatten()).dtype
        seen["logits"], seen["features"] = logits_fake.dtype, features_fake[0].dtype
        return logits_fake.mean()

    def closure(discriminator: Any, target: Tensor) -> Tensor:
        result: Tensor = discriminator(target).logits.mean()
        seen["closure"] = result.dtype
        return result

    model, critic = ToyModel(), Watched()
    terms = [Term(name="watch", loss=watch), Term(name="closure", loss=closure)]
    batch = {name: column.float() for name, column in batch_of().items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        surrogate, report = GeneratorPhase(model, terms[:1], discriminator=critic)(batch, NOW)
        assert seen.pop("critic") == torch.bfloat16
        DiscriminatorPhase(critic, terms[1:], model=model)(batch, NOW)
    surrogate.backward()
    assert report.fake.dtype == torch.bfloat16
    assert set(seen.values()) == {torch.float32}


def test_teachers_see_the_target_without_autograd_and_are_in_no_state() -> None:
    class Teacher(nn.Conv2d):
        input_range = (0.0, 1.0)

    teacher = Teacher(3, 2, 1)
    seen: list[Tensor] = []
    teacher.register_forward_pre_hook(lambda module, args: seen.append(args[0]))

    def distance(prediction: Tensor, features: Tensor) -> Tensor:
        assert not features.requires_grad
        return prediction.mean() * features.mean()

    model, batch = ToyModel(), batch_of()
    terms = [Term(name=name, loss=distance, inputs={"features": "teacher.toy"}) for name in ("a", "b")]
    phase = GeneratorPhase(model, terms, teachers={"toy": teacher}).double()
    assert teacher.weight.dtype == torch.float64  # it moves along
    phase.train()
    phase(batch, NOW)
    assert len(seen) == 1
    assert torch.allclose(seen[0], (batch["image"] + 1) / 2)
    assert not teacher.training
    assert not any(p is q for p in phase.parameters() for q in teacher.parameters())
    assert not any("toy" in name for name in phase.state_dict())


def test_a_model_that_nobody_judges_trains_by_its_own_outputs() -> None:
    class Unjudged(ToyModel):
        judged = None

    model = Unjudged().double()
    terms = [
        Term(
            name="mse",
            loss=lambda reconstruction, target: (reconstruction - target).square().mean(),
            inputs={"reconstruction": "reconstruction"},
        )
    ]
    batch = batch_of()
    surrogate, report = GeneratorPhase(model, terms)(batch, NOW)
    assert surrogate.item() == report.total.item()
    assert report.fake is None
    surrogate.backward()
    assert model.encoder.weight.grad is not None


def test_generator_is_a_name_only_for_models_that_sample() -> None:
    class Sampling(ToyModel):
        def sample(self, noise: Tensor) -> Tensor:
            return self.last(self.decoder(noise).tanh())

    def spread(generator: Any) -> Tensor:
        result: Tensor = generator(torch.ones(1, 4, 2, 2, dtype=torch.float64)).var()
        return result

    model = Sampling().double()
    surrogate, _ = GeneratorPhase(model, [Term(name="spread", loss=spread)])(batch_of(), NOW)
    surrogate.backward()
    assert model.decoder.weight.grad is not None
    assert model.decoder.weight.grad.any()


@pytest.mark.parametrize("player", PLAYERS)
def test_a_pass_never_waits_for_the_device(player: str) -> None:
    """On the meta device there are no numbers: asking for one, as a host synchronisation does, is an error."""
    phase, other = pair(player)
    phase.to("meta")
    other.to("meta")
    batch = {name: column.to("meta") for name, column in batch_of().items()}
    surrogate, report = phase(batch, NOW, measure=True)
    surrogate.backward()
    report.flatten()
    phase.update([report])
