"""A run that is interrupted anywhere and resumed has told, drawn, measured and saved what an uninterrupted one has."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from smalti.engine import signals
from smalti.engine.settings import ValidationSettings
from smalti.engine.signals import Interrupted, StopSignal
from smalti.engine.trainer import Trainer
from tests.engine.job import ema
from tests.engine.toys import differences, everything, tiny_trainer

TIMES = {"seconds", "images_per_second", "eta_seconds", "data_wait", "memory"}
Event = Callable[[], None]


class DiedHere(BaseException):
    """The process is killed here."""


def trainer_in(folder: Path) -> Trainer:
    """Validation before the start, in log steps and others, in steps with a checkpoint and without, and the last."""
    return tiny_trainer(
        folder,
        max_steps=5,
        log_every=2,
        checkpoint_every=3,
        sample_every=2,
        samples=1,
        keep=1,
        batch_size=2,
        ema=ema(),
        validation=ValidationSettings(every=2, at_start=True, monitor="generator/pixel/raw", mode="min"),
    )


def watch(trainer: Trainer, event: Event) -> None:
    """Calls ``event`` before and after everything that a run does."""

    def around(owner: Any, name: str) -> None:
        action = getattr(owner, name)

        def watched(*arguments: Any, **options: Any) -> Any:
            event()
            result = action(*arguments, **options)
            event()
            return result

        object.__setattr__(owner, name, watched)

    validation = trainer.examiner.validation
    assert validation is not None
    around(trainer, "run_cycle")
    around(trainer.feed, "fill")
    around(trainer.journal.file, "write")
    around(trainer.examiner, "pictures")
    around(trainer.checkpoints, "save")
    around(trainer.folder, "save_model")
    around(trainer.folder, "write_evaluation")
    batches = validation.batches

    def watched_batches() -> Iterator[Any]:
        for batch in batches():
            event()
            yield batch

    object.__setattr__(validation, "batches", watched_batches)


def at(number: int, action: Event) -> Event:
    """An event that acts the ``number``-th time, counted from 0."""
    counted = iter(range(10**6))
    return lambda: action() if next(counted) == number else None


def left_in(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves, times and checkpoints before the last one apart."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluation = json.loads((folder / "evaluation.json").read_text())
    return {
        "log": [{name: value for name, value in line.items() if name not in TIMES} for line in lines],
        "evaluation": {name: value for name, value in evaluation.items() if name not in TIMES},
        "samples": {path.name: path.read_bytes() for path in (folder / "samples").iterdir()},
        "model": (folder / "model" / "model.safetensors").read_bytes(),
        "entries": sorted(entry.name for entry in folder.iterdir()),
    }


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trainer, dict[str, Any], int]:
    """The uninterrupted run, what it left, and how many events it has."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    trainer, count = trainer_in(folder), []
    watch(trainer, lambda: count.append(1))
    trainer.run()
    left = left_in(folder)
    assert [line["step"] for line in left["log"]] == [0, 1, 2, 2, 4, 4, 5, 5]
    assert sorted(left["samples"]) == ["00000002.png", "00000004.png", "00000005.png"]
    return trainer, left, len(count)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def die() -> None:
    raise DiedHere


def interrupted_run_differs(
    folder: Path, straight: tuple[Trainer, dict[str, Any], int], interruption: Event, number: int
) -> list[str]:
    """What differs after an interruption at event ``number`` and a resumption."""
    whole, left, _ = straight
    trainer = trainer_in(folder)
    watch(trainer, at(number, interruption))
    with contextlib.suppress(DiedHere):
        trainer.run()
    resumed = trainer_in(folder)
    assert resumed.run(resume=True).finished
    found = left_in(folder)
    names = ("best_step", "best_value", "measured", "at_start", "due")
    return [
        *(f"{number}: {name}" for name in left if found[name] != left[name]),
        *(f"{number}: {name}" for name in differences(everything(whole), everything(resumed))),
        *(f"{number}: {name}" for name in names if getattr(resumed.state, name) != getattr(whole.state, name)),
    ]


@pytest.mark.parametrize("interruption", [terminate, die])
@pytest.mark.parametrize("share", [9, pytest.param(1, marks=pytest.mark.slow)])
def test_interrupted_run_leaves_what_the_uninterrupted_one_leaves(
    tmp_path: Path, straight: tuple[Trainer, dict[str, Any], int], interruption: Event, share: int
) -> None:
    """At every ninth of the things that a run does; the slow one at each."""
    for number in range(share - 1, straight[2], share):
        assert interrupted_run_differs(tmp_path / str(number), straight, interruption, number) == []


def test_finished_run_resumed_writes_nothing_again_and_brings_back_what_is_missing(tmp_path: Path) -> None:
    trainer_in(tmp_path / "run").run()
    left = left_in(tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").unlink()
    (tmp_path / "run" / "model" / "model.safetensors").unlink()
    assert trainer_in(tmp_path / "run").run(resume=True).finished
    assert left_in(tmp_path / "run") == left


def test_two_interruptions_in_one_step_lose_nothing(
    tmp_path: Path, straight: tuple[Trainer, dict[str, Any], int]
) -> None:
    """The second while what the first left over is made up for."""
    _, left, _ = straight
    trainer = trainer_in(tmp_path / "run")
    cycle = trainer.run_cycle

    def cycle_and_stop(measure: bool = False) -> Any:
        turns = cycle(measure)
        terminate() if trainer.state.step == 4 else None
        return turns

    trainer.run_cycle = cycle_and_stop  # type: ignore[method-assign]
    assert not trainer.run().finished
    assert trainer.state.due == ["validation", "pictures"]
    for number in range(4):
        again = trainer_in(tmp_path / "run")
        watch(again, at(number, die))
        with pytest.raises(DiedHere):
            again.run(resume=True)
    assert trainer_in(tmp_path / "run").run(resume=True).finished
    assert left_in(tmp_path / "run") == left


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_every_signal_stops_and_is_given_back(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    before = signal.getsignal(number)
    trainer = trainer_in(tmp_path / "run")
    watch(trainer, at(20, lambda: os.kill(os.getpid(), number)))
    result = trainer.run()
    assert not result.finished
    assert signal.getsignal(number) is before


def test_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        trainer = trainer_in(tmp_path / "run")
        watch(trainer, at(20, lambda: os.kill(os.getpid(), signal.SIGHUP)))
        assert trainer.run().finished
    finally:
        signal.signal(signal.SIGHUP, former)


def test_second_interrupt_stops_where_it_is(tmp_path: Path) -> None:
    trainer = trainer_in(tmp_path / "run")

    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    watch(trainer, at(22, twice))
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        trainer.run()


def test_dead_launcher_is_like_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr(signals, "POLL_SECONDS", 0.01)
    with StopSignal() as stop:
        assert not stop.requested
        monkeypatch.setattr(os, "getppid", lambda: 1)
        with pytest.raises(Interrupted), stop.interruptible():
            threading.Event().wait(20)
    assert stop.requested


def test_shell_that_goes_is_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setattr(signals, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(os, "getppid", lambda: 1)
    with StopSignal() as stop:
        time.sleep(0.05)
    assert not stop.requested
