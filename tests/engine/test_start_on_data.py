"""What the first batch sets (k-means of a codebook, ActNorm) is set once, whatever becomes of the step and the run."""

import contextlib
import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from smalti.discriminators._actnorm import ActNorm
from smalti.engine.health import Guard
from smalti.engine.runtime import Runtime
from smalti.engine.trainer import Trainer
from smalti.nn.clustering import kmeans
from smalti.quantizers import nearest
from tests.engine.job import DiedHereError
from tests.engine.test_loop import poisoned
from tests.engine.toys import differences, everything, tiny_trainer
from tests.quantized import one_codebook


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The centres of each k-means that was run."""
    seen: list[torch.Tensor] = []

    def counted(points: torch.Tensor, clusters: int) -> torch.Tensor | None:
        centres = kmeans(points, clusters)
        if centres is not None:
            seen.append(centres.clone())
        return centres

    monkeypatch.setattr(nearest, "kmeans", counted)
    return seen


def spoil(trainer: Trainer, *steps: int) -> None:
    """All latents are nan at these steps."""

    def hook(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        bad = trainer.state.step in steps
        return (arguments[0] * float("nan"), *arguments[1:]) if bad else arguments

    trainer.model.bottleneck.register_forward_pre_hook(hook)


def rows(trainer: Trainer) -> torch.Tensor:
    codebook: torch.Tensor = trainer.model.bottleneck.branches.codebook.quantizer.weight.detach()  # type: ignore[union-attr]
    return codebook


def test_a_skipped_first_step_keeps_its_start(tmp_path: Path, starts: list[torch.Tensor]) -> None:
    trainer = poisoned(tmp_path / "run", 0, max_steps=1, revival=True)
    trainer.run()
    assert trainer.state.skipped == {"generator": 1}
    assert len(starts) == 1
    state = trainer.model.state_dict()
    assert torch.equal(rows(trainer), starts[0])
    assert torch.equal(state["bottleneck.branches.codebook.quantizer.ema_sums"], starts[0])
    assert state["bottleneck.branches.codebook.quantizer.initialized"]
    assert not state["bottleneck.branches.codebook.quantizer.window.counts"].any()


def test_latents_that_are_not_finite_leave_the_start_to_the_next_step(
    tmp_path: Path, starts: list[torch.Tensor]
) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=4, revival=True)
    spoil(trainer, 0, 1)
    trainer.run()
    assert trainer.state.skipped["generator"] == 2
    assert len(starts) == 1
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())


# Died after so many steps, at some of which latents or losses were nan: the start is behind or before the checkpoint.
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(("died", "nan_steps", "poison"), [(1, (0,), ()), (2, (0, 1), ()), (1, (), (0,)), (2, (), ())])
def test_a_run_resumed_before_or_after_the_start_equals_the_uninterrupted_one(
    tmp_path: Path,
    starts: list[torch.Tensor],
    accumulate: int,
    died: int,
    nan_steps: tuple[int, ...],
    poison: tuple[int, ...],
) -> None:
    def made(name: str) -> Trainer:
        options = {"max_steps": 5, "checkpoint_every": 1, "accumulate": accumulate, "revival": True}
        trainer = poisoned(tmp_path / name, *poison, **options)
        spoil(trainer, *nan_steps)
        return trainer

    straight = made("straight")
    straight.run()
    assert len(starts) == 1
    dying = made("resumed")
    cycle = dying.run_cycle

    def until_death(measure: bool = False) -> Any:
        if dying.state.step == died:
            raise DiedHereError
        return cycle(measure)

    dying.run_cycle = until_death  # type: ignore[method-assign]
    with contextlib.suppress(DiedHereError):
        dying.run()
    resumed = made("resumed")
    resumed.run(resume=True)
    assert len(starts) == 2, "once straight, once before or after the interruption"
    assert torch.equal(starts[0], starts[1])
    assert differences(everything(straight), everything(resumed)) == []


@pytest.mark.parametrize(("nan_steps", "poison"), [((), (0, 1)), ((0, 1), (3,)), ((0,), (1, 2)), ((0, 1, 2), ())])
def test_deciding_on_the_device_equals_deciding_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nan_steps: tuple[int, ...], poison: tuple[int, ...]
) -> None:
    trainers = []
    for name, free in (("host", True), ("device", False)):
        monkeypatch.setattr(Runtime, "reads_are_free", free)
        trainer = poisoned(tmp_path / name, *poison, max_steps=6, log_every=3, revival=True)
        spoil(trainer, *nan_steps)
        trainer.run()
        trainers.append(trainer)
    assert differences(*map(everything, trainers)) == []
    assert trainers[0].state.skipped == trainers[1].state.skipped


@pytest.mark.parametrize("on_device", [False, True])
@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: ActNorm(4), (6, 4, 5, 5)),
        (lambda: one_codebook(4, 8, 4, init="kmeans"), (6, 4, 5, 5)),
        (
            lambda: one_codebook(4, 8, 4, init="kmeans", ema=nearest.EMA(), normalize=True),
            (6, 4, 5, 5),
        ),
    ],
    ids=["actnorm", "k-means", "k-means with averages"],
)
def test_the_guard_restores_everything_but_a_start(make: Any, shape: tuple[int, ...], on_device: bool) -> None:
    part, norm = make(), nn.BatchNorm2d(4)
    network = nn.Sequential(norm, part)
    guard = Guard([network])
    guard.take()
    before = copy.deepcopy(norm.state_dict())
    network(torch.randn(shape))
    started = copy.deepcopy(part.state_dict())
    if on_device:
        with guard.watching():
            pass
        guard.restore_where(torch.tensor(1.0))
    else:
        guard.restore()
    assert all(torch.equal(value, started[name]) for name, value in part.state_dict().items())
    assert any(bool(value) for name, value in started.items() if name.endswith("initialized"))
    assert all(torch.equal(value, before[name]) for name, value in norm.state_dict().items())
    network(torch.randn(shape))
    assert all(torch.equal(value, started[name]) for name, value in part.state_dict().items())
