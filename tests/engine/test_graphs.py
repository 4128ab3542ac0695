"""Which updates are recorded as graphs, and what becomes of those that are."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smalti.discriminators.diff_augment import DiffAugment
from smalti.discriminators.patch import Patch
from smalti.engine.graphs import MOST_RECORDINGS, WARM_UPS, Replayer, kind_of, why_not
from smalti.engine.settings import EngineSettings, PhaseOptimizer
from smalti.losses.hinge import HingeGenerator
from smalti.losses.l1 import L1
from smalti.nn.blocks import ResBlock
from smalti.objectives import GeneratorPhase, Term
from smalti.objectives.weight import Clock
from smalti.quantizers.residual import Residual
from tests.engine.toys import everything, tiny_model, tiny_trainer
from tests.gpu.laws import stand_in
from tests.gpu.stand_in import StandIn

CUDA = torch.device("cuda")
SETTINGS = EngineSettings(max_steps=1, graphs="auto")
PIXEL = Term(name="pixel", loss=L1())


def phase(*more: Term, critic: nn.Module | None = None, model: nn.Module | None = None) -> GeneratorPhase:
    return GeneratorPhase(model or tiny_model("gaussian"), [PIXEL, *more], discriminator=critic)


def of_the_step(prediction: Tensor, step: int) -> Tensor:
    return prediction.mean() * step


def with_blocks() -> nn.Module:
    model = tiny_model("gaussian")
    model.encoder.extra = ResBlock(8, 8, groups=4, recompute="blocks")
    return model


def with_dropped_steps() -> nn.Module:
    model = tiny_model("residual")
    found = next(part for part in model.modules() if isinstance(part, Residual))
    found.dropout = 0.5
    return model


def test_an_ordinary_phase_on_cuda_may_be_recorded() -> None:
    assert why_not(phase(), SETTINGS, PhaseOptimizer(), CUDA, 1) is None


@pytest.mark.parametrize(
    ("make", "changes", "device", "processes", "says"),
    [
        (phase, {"graphs": "off"}, "cuda", 1, "engine.graphs is off"),
        (phase, {}, "cpu", 1, "no CUDA: the run is on cpu"),
        (phase, {}, "cuda", 2, "2 processes reduce gradients"),
        (phase, {"accumulate": 3}, "cuda", 1, "accumulate=3"),
        (lambda: phase(Term(name="slow", loss=L1(), every=4)), {}, "cuda", 1, "'slow' is lazy, every=4"),
        (lambda: phase(Term(name="timed", loss=of_the_step)), {}, "cuda", 1, "'timed' reads the step"),
        (lambda: phase(model=with_blocks()), {}, "cuda", 1, "ResBlock: recompute='blocks'"),
        (lambda: phase(model=with_dropped_steps()), {}, "cuda", 1, "Residual: dropout=0.5"),
        (
            lambda: phase(
                Term(name="adversary", loss=HingeGenerator()),
                critic=Patch(channels=8, layers=1, augment=DiffAugment()),
            ),
            {},
            "cuda",
            1,
            "DiffAugment: what it does to a batch is seeded on the host",
        ),
    ],
)
def test_why_a_phase_is_not_recorded(
    make: Callable[[], GeneratorPhase], changes: dict[str, Any], device: str, processes: int, says: str
) -> None:
    settings = replace(SETTINGS, **changes)
    reason = why_not(make(), settings, PhaseOptimizer(), torch.device(device), processes)
    assert reason is not None
    assert says in reason


def test_updates_are_of_one_kind_while_terms_shapes_and_modes_stay() -> None:
    made = phase(Term(name="late", loss=L1(), start=5, ramp=3))
    images = {"image": torch.zeros(2, 3, 8, 8)}

    def at(step: int, inputs: dict[str, Any] = images) -> Any:
        return kind_of(made, Clock(step=step, updates=step), inputs)

    assert at(0) == at(4)
    kinds = [at(4), at(5), at(6), at(7), at(8), at(8, {"image": torch.zeros(3, 3, 8, 8)})]
    kinds.append(at(8, {"image": images["image"].to(memory_format=torch.channels_last)}))
    made.eval()
    kinds.append(at(8))
    assert len(set(kinds)) == len(kinds)
    assert at(8) == at(99)
    assert at(8, {**images, "text": ["a cat"]}) is None


class Adder:
    """Counts how often work ran, and what it found."""

    def __init__(self) -> None:
        self.weight = torch.ones(())
        self.ran = self.begun = 0

    def begin(self) -> None:
        self.begun += 1

    def work(self, inputs: dict[str, Tensor]) -> Tensor:
        self.ran += 1
        return inputs["x"] + self.weight


def test_an_update_is_replayed_after_its_warm_up_with_new_inputs_and_begun_each_time() -> None:
    adder = Adder()
    replayer = Replayer(StandIn([]), lambda: (adder.weight.data_ptr(),), None)
    found = [replayer.run("kind", {"x": torch.tensor(float(n))}, adder.begin, adder.work) for n in range(6)]
    assert [replayed for _, replayed in found] == [False] * WARM_UPS + [True] * 3
    assert [float(value) for value, _ in found[:WARM_UPS]] == [1.0, 2.0, 3.0]
    assert float(found[-1][0]) == 6.0
    assert found[-1][0] is found[-2][0]  # the same tensor: what is kept must be copied
    assert adder.begun == 7  # recording begins like any other run
    assert replayer.recordings == 1


def test_it_is_recorded_again_for_another_kind_and_for_moved_parameters_and_given_up_if_that_goes_on() -> None:
    adder = Adder()
    replayer = Replayer(StandIn([]), lambda: (adder.weight.data_ptr(),), None, "generator")
    x = {"x": torch.zeros(())}

    def run(kind: str) -> bool:
        return replayer.run(kind, x, adder.begin, adder.work)[1]

    assert [run("a") for _ in range(5)] == [False] * 3 + [True] * 2
    assert [run("b") for _ in range(4)] == [False] * 3 + [True]
    adder.weight = torch.full((), 7.0)
    assert [run("b") for _ in range(4)] == [False] * 3 + [True]
    assert replayer.recordings == 3
    for number in range(MOST_RECORDINGS):
        assert replayer.reason is None or number > MOST_RECORDINGS - 3
        for _ in range(4):
            run(f"kind {number}")
    assert replayer.recordings == MOST_RECORDINGS
    assert replayer.reason == f"it changed after each of {MOST_RECORDINGS} recordings"
    assert not run("b")


def test_what_cannot_be_recorded_runs_as_ever_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Refusing(StandIn):
        def record(self, run: Callable[[], Any]) -> Any:
            run()
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    adder = Adder()
    replayer = Replayer(Refusing([]), tuple, None, "discriminator")
    with caplog.at_level(logging.WARNING, "smalti"):
        found = [replayer.run("kind", {"x": torch.zeros(())}, adder.begin, adder.work) for _ in range(7)]
    assert {float(value) for value, _ in found} == {1.0}
    assert not any(replayed for _, replayed in found)
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA graphs for the phase discriminator from here on: RuntimeError: operation not permitted when stream is "
        "capturing"
    ]


def test_a_bad_step_is_skipped_and_named_in_a_replay_too(tmp_path: Any) -> None:
    trainer = tiny_trainer(tmp_path, max_steps=9, log_every=100, graphs="auto", cycle=("generator",), space="gaussian")
    stand_in(trainer)
    trainer._prepare_to_train()
    for _ in range(7):
        trainer.run_cycle()
    player = trainer.players["generator"]
    assert player.replayer.replays == 2
    before = everything(trainer)
    prepare = player.prepare
    black = torch.full((4, 3, 16, 16), torch.nan)
    player.prepare = lambda *given: {**prepare(*given), "image": black}  # type: ignore[method-assign]
    turn = trainer.run_cycle()[0]
    assert player.replayer.replays == 3
    assert float(turn.bad) == 1.0
    after = everything(trainer)
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("discriminator"))
