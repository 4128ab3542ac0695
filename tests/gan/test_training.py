"""Laws of training a GAN: no gradient leaks, what decomposes is the same in parts, labels and lazy terms arrive."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.config import build
from smalti.discriminators.residual import Residual
from smalti.engine.ema import EMA
from smalti.engine.optimizers import RMSprop, build_optimizer, lazy_adam
from smalti.engine.settings import EMASettings, PhaseOptimizer, parse_cycle
from smalti.losses import Loss
from smalti.losses.gradient_penalty import GradientPenalty
from smalti.losses.path_length import PathLength
from smalti.losses.r1 import R1
from smalti.models.resnet_generator import ResnetGenerator
from smalti.models.stylegan2 import StyleGAN2
from smalti.objectives.term import Term
from smalti.registry import UserError
from tests.engine.job import launch
from tests.gan.toys import parameters_of_tiny_gan, tiny_gan, weights

PENALTY = Term(name="penalty", loss=GradientPenalty(), weight=10.0, inputs={"epsilon": "batch.epsilon"})


@pytest.mark.parametrize("still", ["generator", "discriminator"])
def test_a_phase_that_does_not_move_does_not_disturb_the_other(tmp_path: Path, still: str) -> None:
    """With its learning rate 0 a phase may run or not: the other's updates are bit for bit the same."""
    moving = "discriminator" if still == "generator" else "generator"
    rates = (0.0, 1e-3) if still == "generator" else (1e-3, 0.0)
    both, alone, fresh = (
        tiny_gan(tmp_path / name, rates=rates, critic_terms=[PENALTY]) for name in ("both", "alone", "fresh")
    )
    both.run()
    alone._prepare_to_train()
    for _ in range(both.state.step):  # the same steps, the other phase left out
        clock = alone.state.clock(moving)
        alone.players[moving].play(alone._draw(), clock, [None], guard=alone.guard, measure=False)
        alone.state.updates[moving] = clock.updates + 1
        alone.state.step += 1
    of_both, of_alone, at_start = (weights(trainer.phases[moving].network) for trainer in (both, alone, fresh))
    assert all(torch.equal(of_both[name], of_alone[name]) for name in of_both)
    assert any(not torch.equal(of_both[name], at_start[name]) for name in of_both)
    kept, before = (weights(trainer.phases[still].network) for trainer in (both, fresh))
    assert all(torch.equal(kept[name], before[name]) for name in kept)


@pytest.mark.parametrize("terms", [[], [PENALTY]], ids=["plain", "penalty"])
def test_accumulated_micro_batches_are_one_batch(tmp_path: Path, terms: list[Term]) -> None:
    options: dict[str, Any] = {"critic_terms": terms, "precision": "fp64", "batches": "fresh", "max_steps": 3}
    cycle = ["discriminator*2", "generator"]
    whole = tiny_gan(tmp_path / "whole", batch_size=8, cycle=cycle, **options)
    parts = tiny_gan(tmp_path / "parts", batch_size=2, accumulate=4, cycle=cycle, **options)
    for trainer in (whole, parts):
        trainer.run()
    for name in ("generator", "discriminator"):
        torch.testing.assert_close(
            weights(whole.phases[name].network), weights(parts.phases[name].network), rtol=1e-10, atol=1e-12
        )


def test_two_processes_are_one(tmp_path: Path) -> None:
    whole = parameters_of_tiny_gan(tmp_path / "whole", batch_size=8)
    (tmp_path / "pair").mkdir()
    (pair,) = launch(tmp_path / "pair", [("gan", {"batch_size": 4})])
    assert pair.keys() == whole.keys()
    for name, values in whole.items():
        assert pair[name] == pytest.approx(values, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize(
    "name",
    [
        *("approximate_r1", "approximate_r2", "consistency", "dragan", "gradient_penalty"),
        *("lipschitz_penalty", "r1", "r2", "wgan_div", "zero_centered_penalty"),
    ],
)
def test_penalty_of_a_bf16_run_is_in_single_precision(tmp_path: Path, name: str) -> None:
    """The passes of the penalty itself: those of the log and of the adversarial term are told apart."""
    seen: dict[bool, set[torch.dtype]] = {True: set(), False: set()}
    inside = [False]
    penalty = Term(name="penalty", loss=build({"type": name}, Loss), weight=10.0)
    trainer = tiny_gan(tmp_path / "run", precision="bf16", max_steps=1, critic_terms=[penalty])
    loss, critic = penalty.loss, trainer.phases["discriminator"].network
    loss.register_forward_pre_hook(lambda *_: inside.__setitem__(0, True))
    loss.register_forward_hook(lambda *_: inside.__setitem__(0, False))
    critic.main[0].register_forward_hook(lambda layer, inputs, output: seen[inside[0]].add(output.dtype))
    trainer.run()
    assert seen[True] == {torch.float32}
    assert torch.bfloat16 in seen[False]


def test_path_length_of_a_bf16_run_is_in_single_precision(tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()
    term = Term(name="path", loss=PathLength(), inputs={"latents": "batch.noise"})
    trainer = tiny_gan(tmp_path / "run", precision="bf16", max_steps=1, generator_terms=[term])

    def look(layer: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if inside[0]:
            seen.add(output.dtype)

    inside = [False]
    term.loss.register_forward_pre_hook(lambda *_: inside.__setitem__(0, True))
    term.loss.register_forward_hook(lambda *_: inside.__setitem__(0, False))
    trainer.model.main[0].register_forward_hook(look)
    trainer.run()
    assert seen == {torch.float32}


def test_lazy_terms_of_stylegan2_have_the_weights_of_the_paper_when_they_come(tmp_path: Path) -> None:
    model = StyleGAN2(
        image_size=8, image_channels=1, latent_size=4, width=4, mapping_layers=1, channel_base=32, max_channels=4
    )
    critic = Residual(in_channels=1, channels=4, spectral_norm=False, down=1, flat=0)
    trainer = tiny_gan(
        tmp_path / "run",
        model=model,
        critic=critic,
        shape=(1, 8, 8),
        generator_terms=[Term(name="path_length", loss=PathLength(shrink=2), weight=2.0, every=4)],
        critic_terms=[Term(name="r1", loss=R1(), weight=5.0, every=16)],
        max_steps=17,
    )
    trainer._prepare_to_train()
    for step in range(17):
        turns = {turn.phase: turn.reports[0].terms for turn in trainer.run_cycle()}
        r1, path = turns["discriminator"]["r1"], turns["generator"]["path_length"]
        assert (r1.state == "active") == (step % 16 == 0)
        assert (path.state == "active") == (step % 4 == 0)
        if step % 16 == 0:
            assert r1.weight == 80.0
        if step % 4 == 0:
            assert path.weight == 8.0
            assert path.raw is not None
            assert math.isfinite(path.raw)
    path_length = trainer.phases["generator"].losses["path_length"]
    assert path_length.mean > 0
    assert model.mean_w.abs().sum() > 0


def test_log_between_the_turns_of_a_lazy_term_tells_its_last_value(tmp_path: Path) -> None:
    r1 = Term(name="r1", loss=R1(), weight=5.0, every=4)
    trainer = tiny_gan(tmp_path / "run", critic_terms=[r1], max_steps=7, accumulate=2)
    trainer.run()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    raw, status = ([line[f"train/discriminator/r1/{name}"] for line in lines] for name in ("raw", "status"))
    assert status == ["active", *["skipped"] * 3, "active", *["skipped"] * 2]
    assert raw == [raw[0]] * 4 + [raw[4]] * 3
    assert raw[0] != raw[4]


def test_path_length_reaches_the_mapping_network(tmp_path: Path) -> None:
    model = StyleGAN2(image_size=8, latent_size=4, width=4, mapping_layers=1, channel_base=32, max_channels=4)
    output = model.training_forward({"image": torch.zeros(2, 3, 8, 8)})
    PathLength()(model.sample, output.latents).total.backward()
    assert model.mapping.layers[0].weight.grad.abs().sum() > 0
    assert model.blocks[-1].layers[0].conv.weight.grad.abs().sum() > 0


def test_labels_reach_both_players(tmp_path: Path) -> None:
    model = ResnetGenerator(image_size=8, image_channels=1, latent_size=3, channels=4, num_classes=3)
    critic = Residual(in_channels=1, channels=4, num_classes=3)
    trainer = tiny_gan(
        tmp_path / "run", model=model, critic=critic, shape=(1, 8, 8), critic_terms=[Term(name="r1", loss=R1())]
    )
    tables = {
        "model": model.blocks[0].first_norm.gain.weight,
        "critic": critic.classes.parametrizations.weight.original,
    }
    before = {name: table.detach().clone() for name, table in tables.items()}
    trainer.run()
    assert all(not torch.equal(table, before[name]) for name, table in tables.items())


def test_rmsprop_steps_as_torch_does_and_not_at_all_where_the_step_is_bad() -> None:
    ours, theirs = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    optimizers = [
        build_optimizer(ours, PhaseOptimizer(type="rmsprop", lr=1e-2)),
        torch.optim.RMSprop(theirs.parameters(), lr=1e-2),
    ]
    assert isinstance(optimizers[0], RMSprop)
    for step in range(4):
        for module, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            module(torch.full((2, 3), 1.0 + step)).square().sum().backward()
        if step == 2:
            optimizers[0].found_inf = torch.tensor(1.0)
            kept = weights(ours)
            optimizers[0].step()
            assert all(torch.equal(kept[name], value) for name, value in weights(ours).items())
            continue
        optimizers[0].found_inf = torch.tensor(0.0)
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(weights(ours), weights(theirs))


def test_lazy_adam_is_what_the_optimizer_gets() -> None:
    spec = PhaseOptimizer(lr=2e-3, betas=(0.0, 0.99), lazy_adam=16)
    optimizer = build_optimizer(torch.nn.Linear(2, 2), spec)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2e-3 * 16 / 17)
    assert optimizer.param_groups[0]["betas"] == pytest.approx((0.0, 0.99 ** (16 / 17)))
    assert lazy_adam(1.0, (0.5, 0.9), None) == (1.0, (0.5, 0.9))


@pytest.mark.parametrize(("half_life", "ramp"), [(100.0, None), (100.0, 0.05), (1e9, 0.5)])
def test_average_has_its_half_life_in_images_whatever_the_batch(half_life: float, ramp: float | None) -> None:
    module = torch.nn.Linear(1, 1, bias=False)
    ema = EMA(module, EMASettings(half_life=half_life, ramp=ramp))
    expected, seen = module.weight.detach().clone(), 0
    for step in range(40):
        images = 8
        seen += images
        with torch.no_grad():
            module.weight.fill_(float(step))
        ema.update(images=images)
        at_most = half_life if ramp is None else min(half_life, seen * ramp)
        keep = 0.5 ** (images / at_most)
        expected = keep * expected + (1 - keep) * step
    torch.testing.assert_close(ema.shadow["weight"], expected)


def test_first_entry_of_a_cycle_has_nothing_to_reuse() -> None:
    with pytest.raises(UserError, match="no update before it"):
        parse_cycle([{"phase": "generator", "reuse": True}], ["generator"])


def test_reused_noise_is_that_of_the_update_before(tmp_path: Path) -> None:
    noise: list[torch.Tensor] = []
    cycle = ["discriminator", {"phase": "generator", "reuse": True}, "discriminator"]
    trainer = tiny_gan(tmp_path / "run", cycle=cycle, batches="fresh", max_steps=1)
    trainer.model.register_forward_hook(lambda module, inputs, output: noise.append(inputs[0]))
    trainer.run()
    first, second, third = noise
    assert torch.equal(first, second)
    assert not torch.equal(second, third)
