"""A run folder belongs to one run at a time, and to none when its run is dead, whoever outlives it."""

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smalti.engine.lock import LOCK, FolderLock
from smalti.registry import UserError
from tests.engine.toys import tiny_trainer

ROOT = Path(__file__).parents[2]

# Holds the folder's lock with a child that is forked as data workers are and outlives it; the tests kill it. The child
# itself says that it is there: a fork that has not run yet has not closed its copy of the lock either.
HOLDER = """
import multiprocessing, os, pathlib, sys, time
from smalti.engine.lock import FolderLock
lock = FolderLock(pathlib.Path(sys.argv[1]))
lock.take()
def work():
    print(os.getpid(), flush=True)
    time.sleep(60)
multiprocessing.get_context("fork").Process(target=work).start()
time.sleep(60)
"""


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[FolderLock]:
    held = FolderLock(tmp_path / "run")
    assert held.take() == ""
    yield held
    held.release()


def holds(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("resume", [False, True])
def test_folder_of_a_run_that_goes_on_is_refused_by_pid_and_host(lock: FolderLock, resume: bool) -> None:
    trainer = tiny_trainer(lock.folder, max_steps=1)
    with pytest.raises(UserError, match=rf"going on in .*process {os.getpid()} on {socket.gethostname()}, since"):
        trainer.run(resume=resume)
    assert holds(lock.folder) == [LOCK]


def test_other_name_of_the_folder_is_the_same_folder(lock: FolderLock, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(lock.folder)
    with pytest.raises(UserError, match="going on"):
        FolderLock(tmp_path / "link").take()


def test_lock_holds_to_the_end_of_a_run_and_no_longer(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=2)
    refused = []
    cycle = trainer.run_cycle

    def cycle_and_try(measure: bool = False) -> object:
        with pytest.raises(UserError) as error:
            FolderLock(tmp_path / "run").take()
        refused.append(error)
        return cycle(measure)

    trainer.run_cycle = cycle_and_try  # type: ignore[method-assign, assignment]
    trainer.run()
    assert len(refused) == 2
    assert LOCK not in holds(tmp_path / "run")
    assert tiny_trainer(tmp_path / "run", max_steps=2).run(resume=True).finished


def test_run_that_is_refused_or_fails_gives_the_folder_back(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        tiny_trainer(tmp_path, max_steps=1).run()
    trainer = tiny_trainer(tmp_path / "run", max_steps=1)
    trainer.run_cycle = lambda measure=False: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    with pytest.raises(ZeroDivisionError):
        trainer.run()
    assert holds(tmp_path) == ["notes.txt", "run"]
    assert LOCK not in holds(tmp_path / "run")


def test_of_many_starts_at_once_one_wins(tmp_path: Path) -> None:
    ready, won, refused = threading.Barrier(8), [], []

    def start() -> None:
        lock = FolderLock(tmp_path / "run")
        ready.wait()
        try:
            lock.take()
            won.append(lock)
        except UserError:
            refused.append(lock)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)
    won[0].release()
    assert FolderLock(tmp_path / "run").take() == ""


def test_killed_holder_frees_the_folder_though_its_workers_live(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    with subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        with pytest.raises(UserError, match=f"process {holder.pid} on"):
            FolderLock(tmp_path / "run").take()
        holder.kill()
        holder.wait()
        os.kill(worker, 0)  # it is still there
        taken = FolderLock(tmp_path / "run").take()
        os.kill(worker, signal.SIGKILL)
    assert taken == ""


@pytest.mark.parametrize("name", [LOCK, ".unfinished-model", ".unfinished-recipe.yaml"])
def test_folder_with_the_leavings_of_a_crash_can_be_started(tmp_path: Path, name: str) -> None:
    leaving = tmp_path / "run" / name
    leaving.mkdir(parents=True) if name.endswith("model") else None
    leaving.parent.mkdir(exist_ok=True)
    if not leaving.is_dir():
        leaving.write_text("process 1 on nowhere, since never\n")
    assert tiny_trainer(tmp_path / "run", max_steps=1).run().finished
    assert name not in holds(tmp_path / "run")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_where_there_are_no_locks_the_user_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    trainer = tiny_trainer(tmp_path / "run", max_steps=1)
    told: list[str] = []
    monkeypatch.setattr(trainer.journal.watcher, "say", told.append)
    assert trainer.run().finished
    assert f"cannot be locked ({os.strerror(code)})" in told[0]
