"""Optimizers, learning rates, averages, randomness, the cycle: each by its law."""

import signal
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smalti.engine.ema import EMA
from smalti.engine.optimizers import build_optimizer, learning_rate, parameter_groups
from smalti.engine.randomness import forked, keyed_noise, reseed
from smalti.engine.runtime import Runtime
from smalti.engine.settings import EMASettings, EngineSettings, PhaseOptimizer, compare_recipes, parse_cycle
from smalti.engine.signals import StopSignal
from smalti.engine.state import TrainState
from smalti.registry import UserError


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.GroupNorm(1, 3)
        self.codes = nn.Embedding(5, 2)
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.actnorm = nn.Parameter(torch.ones(1, 3, 1, 1))
        self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)


def test_only_kernels_and_codes_decay() -> None:
    module = Scaled()
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    groups = parameter_groups(module, 0.1)
    found = [(group["weight_decay"], sorted(names[id(p)] for p in group["params"])) for group in groups]  # type: ignore[attr-defined]
    assert found == [
        (0.1, ["codes.weight", "conv.weight"]),
        (0.0, ["actnorm", "conv.bias", "log_scale", "norm.bias", "norm.weight"]),
    ]


@pytest.mark.parametrize(("kind", "reference"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)])
def test_step_equals_torch(kind: Any, reference: Any) -> None:
    ours, theirs = nn.Linear(3, 2), nn.Linear(3, 2)
    theirs.load_state_dict(ours.state_dict())
    spec = PhaseOptimizer(type=kind, lr=1e-2, betas=(0.5, 0.9), weight_decay=0.1)
    optimizers = [
        build_optimizer(ours, spec),
        reference(
            [{"params": [theirs.weight]}, {"params": [theirs.bias], "weight_decay": 0.0}],
            lr=1e-2,
            betas=(0.5, 0.9),
            weight_decay=0.1,
        ),
    ]
    x = torch.randn(4, 3)
    for _ in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_nothing_to_train_is_an_error() -> None:
    with pytest.raises(ValueError, match="no parameter to train"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), PhaseOptimizer())


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "exponential"])
def test_learning_rate_rises_to_its_peak_and_ends_where_it_should(schedule: Any) -> None:
    spec = PhaseOptimizer(lr=0.1, lr_schedule=schedule, warmup=4, lr_end=0.1)
    rates = [learning_rate(spec, step, 20) for step in range(30)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4] == pytest.approx(0.1)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[20:] == pytest.approx([0.1 if schedule == "constant" else 0.01] * 10)
    middle = {"constant": 0.1, "exponential": 0.1 * 0.1**0.5}  # the geometric mean of both ends
    assert rates[12] == pytest.approx(middle.get(schedule, 0.01 + 0.09 / 2))


def test_schedule_may_end_before_the_run() -> None:
    spec = PhaseOptimizer(lr=1.0, lr_schedule="linear", lr_steps=4)
    assert [learning_rate(spec, step, 100) for step in (0, 2, 4, 9)] == [1.0, 0.5, 0.0, 0.0]


def test_average_equals_that_of_latent_diffusion(golden: Callable[[str], dict[str, Tensor]]) -> None:
    values = golden("ldm/litema.safetensors")
    model = nn.Linear(3, 2, bias=False)
    model.weight.data.copy_(values["w0"])
    ema = EMA(model, EMASettings(decay=0.9999, warmup=True))
    for number in range(1, 5):
        with torch.no_grad():
            model.weight += 1.0
        ema.update()
        torch.testing.assert_close(ema.shadow["weight"], values[f"ema_w_{number}"], rtol=1e-6, atol=1e-7)


def test_average_moves_only_with_good_steps() -> None:
    model = nn.Linear(2, 2)
    ema = EMA(model, EMASettings(decay=0.5, warmup=False))
    before = {name: value.clone() for name, value in ema.state_dict().items()}
    with torch.no_grad():
        model.weight += 1.0
    ema.update(skip=torch.ones(()))
    assert ema.updates == 0
    torch.testing.assert_close(ema.state_dict(), before)
    ema.update(skip=torch.zeros(()))
    assert ema.updates == 1
    torch.testing.assert_close(ema.shadow["weight"], before["weight"] + 0.5)


def test_averaged_weights_are_lent_and_given_back() -> None:
    model = nn.Linear(2, 2)
    ema = EMA(model, EMASettings(decay=0.5))
    average = ema.shadow["weight"].clone()
    with torch.no_grad():
        model.weight += 1.0
    own = model.weight.detach().clone()
    with ema.applied():
        assert torch.equal(model.weight, average)
    assert torch.equal(model.weight, own)
    assert torch.equal(ema.shadow["weight"], average)


def test_averages_of_another_model_are_refused() -> None:
    ema = EMA(nn.Linear(2, 2), EMASettings())
    with pytest.raises(ValueError, match="do not fit each other: bias"):
        ema.load_state_dict({"weight": torch.zeros(2, 2)}, 0)


def test_noise_belongs_to_the_sample_and_not_to_its_batch() -> None:
    together = keyed_noise(0, 5, "generator", [3, 4, 9], (2, 2))
    assert torch.equal(together[1:], keyed_noise(0, 5, "generator", torch.tensor([4, 9]), (2, 2)))
    others = [
        keyed_noise(1, 5, "generator", [3], (2, 2)),
        keyed_noise(0, 6, "generator", [3], (2, 2)),
        keyed_noise(0, 5, "critic", [3], (2, 2)),
        together[1:2],
    ]
    assert not any(torch.equal(together[:1], other) for other in others)


def test_noise_is_standard_normal() -> None:
    noise = keyed_noise(0, 0, "generator", range(200), (50,)).double()
    assert abs(noise.mean()) < 0.03
    assert abs(noise.std() - 1.0) < 0.03
    assert np.abs(np.corrcoef(noise[:20].numpy())[~np.eye(20, dtype=bool)]).max() < 0.6


def test_fork_leaves_no_trace() -> None:
    reseed(0, "a")
    expected = torch.rand(3), np.random.rand()
    reseed(0, "a")
    with forked(7):
        first = torch.rand(2), np.random.rand()
    with forked(7):
        assert torch.equal(first[0], torch.rand(2))
    assert torch.equal(expected[0], torch.rand(3))
    with forked(8):
        np.random.rand(5)
    assert expected[1] == np.random.rand()


def test_cycle_is_read() -> None:
    cycle = parse_cycle(["critic * 5", {"phase": "generator"}], ["generator", "critic"])
    assert [(entry.phase, entry.repeat) for entry in cycle] == [("critic", 5), ("generator", 1)]
    assert parse_cycle([{"phase": "generator", "weight_clip": 0.01}], ["generator"])[0].weight_clip == 0.01


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["discriminator"], "exactly one generator"),
        (["generator", "generator"], "exactly one generator update, found 2"),
        (["generator*2"], "exactly one generator update, found 2"),
        (["generater"], "did you mean 'generator'"),
        (["generator", "discriminator*0"], "cycle.1='discriminator\\*0'"),
        ([{"repeat": 2}], "'phase' is missing"),
        ([{"phase": "generator", "repeats": 2}], "did you mean 'repeat'"),
        ([{"phase": "generator", "repeat": 0}], "repeat=0"),
    ],
)
def test_impossible_cycle_is_refused(entries: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_cycle(entries, ["generator", "discriminator"])


def test_fp16_is_refused_with_the_reason() -> None:
    with pytest.raises(UserError, match="bf16 has the range of fp32"):
        EngineSettings(max_steps=1, precision="fp16")  # type: ignore[arg-type]


def test_memory_format_is_contiguous_unless_channels_last_is_asked_for() -> None:
    images = {"image": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}
    for value, strides in ((False, (48, 16, 4, 1)), ("auto", (48, 16, 4, 1)), (True, (48, 1, 12, 3))):
        runtime = Runtime(EngineSettings(max_steps=1, device="cpu", channels_last=value))  # type: ignore[arg-type]
        layer = nn.Conv2d(3, 3, 4)
        runtime.place(layer)
        assert runtime.to_device(images)["image"].stride() == layer.weight.stride() == strides
    with pytest.raises(ValueError, match="channels_last='last': expected True, False or 'auto'"):
        EngineSettings(max_steps=1, channels_last="last")  # type: ignore[arg-type]


def test_only_what_leaves_the_weights_alone_may_differ() -> None:
    stored = {
        "engine": {"max_steps": 5, "seed": 0},
        "data": {"workers": 0, "source": {"type": "photos"}},
        "cycle": ["a"],
    }
    free = {"engine": {"max_steps": 9, "seed": 0}, "data": {"workers": 4, "source": {"type": "photos"}}, "cycle": ["a"]}
    assert compare_recipes(stored, free) == []
    other = {"engine": {"max_steps": 5}, "data": {"workers": 0, "source": {"type": "folder"}}, "cycle": ["a", "b"]}
    assert compare_recipes(stored, other) == [
        "cycle.1: absent -> b",
        "data.source.type: photos -> folder",
        "engine.seed: 0 -> absent",
    ]


def test_an_option_that_came_later_is_no_difference_at_its_default() -> None:
    stored = {"engine": {"seed": 0}}
    assert compare_recipes(stored, {"engine": {"seed": 0, "frozen": "float32", "graphs": "off"}}) == []
    assert compare_recipes(stored, {"engine": {"seed": 0, "frozen": "auto"}}) == ["engine.frozen: absent -> auto"]


def test_stream_goes_on_where_it_was_with_other_ranks() -> None:
    state = TrainState(micro_batches=6, world_size=2)
    state.share_among(4)
    assert (state.micro_batches, state.world_size) == (3, 4)
    with pytest.raises(UserError, match="12 micro-batches"):
        state.share_among(5)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_is_noted_and_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopSignal() as stop:
        signal.raise_signal(number)
        assert stop.requested
    assert signal.getsignal(number) is before


def test_second_interrupt_stops_at_once() -> None:
    with StopSignal():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_other_threads_may_train() -> None:
    found: list[bool] = []

    def work() -> None:
        with StopSignal() as stop:
            found.append(stop.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]


@pytest.mark.parametrize("asked", [False, True])
def test_deterministic_algorithms_are_taken_while_the_run_goes_on(asked: bool) -> None:
    runtime = Runtime(EngineSettings(max_steps=1, device="cpu", deterministic=asked))
    assert not torch.are_deterministic_algorithms_enabled()
    with runtime.repeatable(), runtime.repeatable():
        assert torch.are_deterministic_algorithms_enabled() == asked
    assert not torch.are_deterministic_algorithms_enabled()
