"""Data that blocks, fails, is deleted or loses its reader: the steps so far are saved, one message says what was."""

import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smalti.data.image_folder import ImageFolder
from smalti.engine.settings import ValidationSettings
from smalti.engine.trainer import Trainer
from smalti.registry import UserError
from tests.engine.toys import Gradients, differences, everything, tiny_trainer

STEPS = 5


class Troubled(Gradients):
    """Item 3 is trouble when it is asked for a second time by the same process."""

    def __init__(self, trouble: Callable[[], None], asked: int = 2) -> None:
        super().__init__()
        self.trouble, self.asked, self.count_of = trouble, asked, 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.count_of += index == 3
        if index == 3 and self.count_of == self.asked:
            self.trouble()
        return super().__getitem__(index)


def trainer_with(folder: Path, source: Any = None, **options: Any) -> Trainer:
    return tiny_trainer(folder, source=source, max_steps=STEPS, norm="none", **options)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    trainer = trainer_with(tmp_path_factory.mktemp("whole") / "run")
    trainer.run()
    return trainer


def goes_on(folder: Path, whole: Trainer) -> bool:
    """Whether a run saved what it had, and a resumption with sound data ends as the undisturbed run."""
    resumed = trainer_with(folder)
    saved = resumed.checkpoints.steps()
    return resumed.run(resume=True).finished and bool(saved) and not differences(everything(whole), everything(resumed))


def blocks(mark: Path) -> Callable[[], None]:
    def block() -> None:
        mark.touch()
        time.sleep(600)

    return block


def terminate_once(mark: Path) -> threading.Thread:
    """Sends SIGTERM to this process as soon as ``mark`` is there."""

    def wait_and_send() -> None:
        while not mark.exists():
            time.sleep(0.01)
        time.sleep(0.2)  # until the reader waits in earnest
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait_and_send)
    thread.start()
    return thread


@pytest.mark.parametrize("workers", [0, 2])
def test_signal_ends_a_run_that_waits_for_data(tmp_path: Path, whole: Trainer, workers: int) -> None:
    trainer = trainer_with(tmp_path / "run", Troubled(blocks(tmp_path / "mark")), workers=workers)
    sender = terminate_once(tmp_path / "mark")
    result = trainer.run()
    sender.join()
    assert not result.finished
    assert 0 < result.step < STEPS
    assert trainer.checkpoints.steps() == [result.step]
    assert not multiprocessing.active_children()
    assert goes_on(tmp_path / "run", whole)


@pytest.mark.parametrize("at_start", [False, True])
def test_signal_ends_a_run_that_waits_for_held_out_data(tmp_path: Path, at_start: bool) -> None:
    source = Troubled(blocks(tmp_path / "mark"), asked=1)
    options: dict[str, Any] = {"validation": ValidationSettings(every=2, at_start=at_start)}
    trainer = trainer_with(tmp_path / "run", held_out_source=source, **options)
    sender = terminate_once(tmp_path / "mark")
    result = trainer.run()
    sender.join()
    assert (result.finished, result.step) == (False, 0 if at_start else 2)
    assert trainer_with(tmp_path / "run", held_out_images=len(source), **options).run(resume=True).finished


def raises(error: BaseException) -> Callable[[], None]:
    def trouble() -> None:
        raise error

    return trouble


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KeyError("tile"), "KeyError: 'tile'"),
        (OSError(5, "Input/output error"), r"OSError: \[Errno 5\] Input/output error"),
        (StopIteration(), "StopIteration"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_error_of_a_source_is_told_with_item_and_place(
    tmp_path: Path, whole: Trainer, workers: int, error: BaseException, words: str
) -> None:
    trainer = trainer_with(tmp_path / "run", Troubled(raises(error)), workers=workers)
    place = rf"item 3 \(gradient 3\) of Troubled cannot be read: {words} \(test_troubled_data.py, line \d+\)"
    with pytest.raises(UserError, match=rf"^{place}; the \d steps so far are saved"):
        trainer.run()
    assert goes_on(tmp_path / "run", whole)


def kill_worker() -> None:
    assert multiprocessing.parent_process() is not None
    os.kill(os.getpid(), signal.SIGKILL)


def test_worker_killed_while_it_reads_is_told(tmp_path: Path, whole: Trainer) -> None:
    trainer = trainer_with(tmp_path / "run", Troubled(kill_worker), workers=2)
    with pytest.raises(UserError, match=r"process that reads data has ended: DataLoader worker.*memory.*steps so far"):
        trainer.run()
    assert goes_on(tmp_path / "run", whole)


def test_worker_killed_in_the_middle_of_a_step_does_not_halve_it(tmp_path: Path, whole: Trainer) -> None:
    trainer = trainer_with(tmp_path / "run", workers=2)
    play = trainer.players["discriminator"].play

    def kill_and_play(*arguments: Any, **options: Any) -> Any:
        if trainer.state.step == 2:
            for worker in multiprocessing.active_children():
                os.kill(worker.pid or 0, signal.SIGKILL)
                worker.join()
        return play(*arguments, **options)

    trainer.players["discriminator"].play = kill_and_play  # type: ignore[method-assign]
    with pytest.raises(UserError, match="process that reads data has ended"):
        trainer.run()
    assert trainer.checkpoints.steps()[-1] >= 3
    assert goes_on(tmp_path / "run", whole)


@pytest.mark.parametrize(
    ("trouble", "place", "end"),
    [
        ("waits", "source", "finished False, step 2, checkpoints [2], due []"),
        ("waits", "held_out_source", "finished False, step 2, checkpoints [2], due ['validation']"),
        ("fails", "source", "of Troubled cannot be read: KeyError: 'tile' (job.py"),
        ("fails", "held_out_source", "validation at step 2 failed: "),
    ],
)
def test_trouble_of_one_process_stops_all_with_a_checkpoint(
    of_two_processes: dict[str, Any], trouble: str, place: str, end: str
) -> None:
    ends = of_two_processes[f"troubled-{trouble}-{place}"]
    assert len(ends) == 2
    assert all(end in one and "checkpoints [2]" in one for one in ends)


class FewBatches:
    """A loader of somebody's own, which ends."""

    def batches(self, start: int = 0) -> Iterator[dict[str, Any]]:
        yield from ()


def test_loader_that_ends_is_told(tmp_path: Path) -> None:
    trainer = trainer_with(tmp_path / "run")
    trainer.feed.loader = FewBatches()
    with pytest.raises(UserError, match="the data ended after 0 micro-batches"):
        trainer.run()
    assert trainer.checkpoints.steps() == []


@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize("workers", [0, 2])
def test_data_deleted_during_the_run_is_told(tmp_path: Path, what: str, workers: int) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for index in range(4):
        Gradients()[index]["image"].save(images / f"{index}.png")
    trainer = trainer_with(tmp_path / "run", ImageFolder(path=str(images)), workers=workers)
    cycle = trainer.run_cycle

    def delete_and_cycle(measure: bool = False) -> Any:
        if trainer.state.step == 1:
            shutil.rmtree(images) if what == "folder" else (images / "2.png").unlink()
        return cycle(measure)

    trainer.settings.__dict__["max_steps"] = 50
    trainer.run_cycle = delete_and_cycle  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"\d\.png: No such file or directory; the \d steps so far are saved"):
        trainer.run()
    assert len(trainer.checkpoints.steps()) == 1


# What fails in a validation or in pictures.


def fails(error: Exception) -> Callable[[object], Mapping[str, float]]:
    def measure(model: object) -> Mapping[str, float]:
        raise error

    return measure


def failing(folder: Path, error: Exception | None, every: int = 0, **options: Any) -> Trainer:
    trainer = trainer_with(folder, validation=ValidationSettings(every=every), sample_every=50, **options)
    validation = trainer.examiner.validation
    assert validation is not None
    if error is not None:
        object.__setattr__(validation, "measure", fails(error))
    return trainer


@pytest.mark.parametrize(
    "error", [UserError("too small"), ValueError("too small"), MemoryError("too small"), AssertionError("too small")]
)
def test_failure_of_the_last_validation_costs_neither_model_nor_checkpoint(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(UserError, match=rf"validation at step {STEPS} failed: .*too small.*; the {STEPS} steps"):
        failing(tmp_path / "run", error).run()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    resumed = failing(tmp_path / "run", None)
    assert resumed.checkpoints.steps() == [STEPS]
    assert resumed.run(resume=True).finished
    assert (tmp_path / "run" / "evaluation.json").is_file()
    assert (tmp_path / "run" / "samples" / f"{STEPS:08d}.png").is_file()


def test_failure_of_the_last_pictures_costs_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: Image.Image, *arguments: object, **options: object) -> None:
        raise ValueError("unknown file extension")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", refuse)
        with pytest.raises(UserError, match=r"pictures at step 5 failed: ValueError: unknown.*the model in "):
            failing(tmp_path / "run", None).run()
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert failing(tmp_path / "run", None).run(resume=True).finished
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum("val/" in line for line in lines) == 1


def test_failure_of_a_validation_on_the_way_costs_no_step(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^validation at step 2 failed: ZeroDivisionError: no pixels .*; the 2 steps"):
        failing(tmp_path / "run", ZeroDivisionError("no pixels"), every=2).run()
    resumed = failing(tmp_path / "run", None, every=2)
    assert resumed.checkpoints.steps() == [2]
    assert resumed.run(resume=True).finished
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert sum("val/" in line for line in lines) == 3
