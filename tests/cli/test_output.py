"""What a training prints is decoration; what another verb prints is its result, and to lose that is an error."""

import contextlib
import io
import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from smalti.engine.decoration import Forgiving, decoration
from tests.cli.conftest import TINY
from tests.engine.toys import tiny_trainer

ROOT = Path(__file__).parents[2]
SMALTI = f"{sys.executable} -m smalti"


@dataclass
class Ending:
    """How a process ended."""

    code: int
    error: str


def start(command: str, **options: object) -> "subprocess.Popen[str]":
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        ["bash", "-c", f"set -o pipefail; {command}"],
        **({"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL} | options),
        cwd=ROOT,
        env=environment,
        text=True,
    )


TRAININGS = {"full and closed": "> /dev/full 2>&-", "no reader": "2>&1 | head -1", "gone terminal": "<&- >&-"}


@pytest.fixture(scope="module")
def trained_without_output(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Ending]]:
    """One training for each way in which output is broken; one more on a terminal that goes away."""
    folder = tmp_path_factory.mktemp("runs")
    options = f"{SMALTI} train {TINY} --set engine.max_steps=6 --set engine.log_every=1"
    master, slave = os.openpty()
    started = {
        name: start(
            f"{options} --out '{folder / name}' {end}", stderr=slave if name == "gone terminal" else subprocess.PIPE
        )
        for name, end in TRAININGS.items()
    }
    os.close(slave)
    os.read(master, 1)
    os.close(master)
    endings = {}
    for name, process in started.items():
        _, error = process.communicate(timeout=120)
        endings[name] = (folder / name, Ending(process.returncode, error or ""))
    return endings


@pytest.mark.parametrize("name", TRAININGS)
def test_training_is_whole_whatever_becomes_of_its_output(
    trained_without_output: dict[str, tuple[Path, Ending]], name: str
) -> None:
    folder, ending = trained_without_output[name]
    assert ending.code == 0
    assert "Traceback" not in ending.error
    assert "Exception ignored" not in ending.error
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 6
    assert (folder / "model" / "model.safetensors").is_file()
    assert (folder / "report" / "index.html").is_file()


FULL, CLOSED = "No space left on device", "Bad file descriptor"
RESULTS = {
    "recipes list --json > /dev/full": (2, f"error: standard output: {FULL}\n"),
    "recipes show quickstart >&-": (2, f"error: standard output: {CLOSED}\n"),
    "--help > /dev/full": (2, f"error: standard output: {FULL}\n"),
    "recipes show nothing 2> /dev/full": (2, ""),
    "recipes show quickstart | true": (1, ""),  # a reader that has left is nobody's error, as elsewhere
}


def test_result_that_cannot_be_written_is_an_error() -> None:
    started = {command: start(f"{SMALTI} {command}", stdout=None) for command in RESULTS}
    told = {command: process.communicate(timeout=120)[1] for command, process in started.items()}
    assert {command: (process.returncode, told[command]) for command, process in started.items()} == RESULTS


class Broken(io.StringIO):
    """A stream that takes nothing."""

    def write(self, text: str) -> int:
        raise OSError(32, "Broken pipe")

    def flush(self) -> None:
        raise OSError(32, "Broken pipe")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Broken(), closed(), None], ids=["broken", "closed", "none"])
def test_print_and_log_cost_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO | None
) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=2)
    trainer.journal.watcher.quiet = False
    cycle = trainer.run_cycle
    handler = logging.StreamHandler(stream or Broken())
    logger = logging.getLogger("smalti.test_output")
    logger.propagate = False
    logger.addHandler(handler)

    def talk_and_cycle(measure: bool = False) -> object:
        sys.stdout.write("here\n")
        sys.stdout.flush()
        logger.warning("here")
        return cycle(measure)

    trainer.run_cycle = talk_and_cycle  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        assert trainer.run().finished
        assert sys.stdout is stream
    finally:
        logger.removeHandler(handler)


def test_letters_that_a_stream_lacks_are_replaced() -> None:
    below = io.BytesIO()
    stream = Forgiving(io.TextIOWrapper(below, encoding="ascii"))
    print("Gr\u00fc\u00dfe", file=stream, flush=True)
    assert below.getvalue() == b"Gr??e\n"
    assert stream.encoding == "ascii"
    assert not stream.isatty()


def test_streams_that_somebody_replaced_meanwhile_are_left() -> None:
    other = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        with decoration():
            sys.stdout = other
        assert sys.stdout is other
