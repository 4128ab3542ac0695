"""What all verbs share: help with an example, and one place where errors become messages."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import torch
import typer
from safetensors import SafetensorError
from typer.testing import CliRunner

from smalti import __version__
from smalti.cli._app import Verbs
from smalti.config import ConfigError, Problem
from smalti.registry import UserError
from tests.cli.conftest import Verb

VERBS = [
    ["train"],
    ["evaluate"],
    ["compare"],
    ["reconstruct"],
    ["encode"],
    ["tokenize"],
    ["detokenize"],
    ["tokens"],
    ["convert"],
    ["latent-stats"],
    ["sample"],
    ["report"],
    ["doctor"],
    ["app"],
    ["bench"],
    ["bench", "quantizer"],
    ["bench", "step"],
    ["bench", "data"],
    ["bench", "encode"],
    ["protocols"],
    ["protocols", "list"],
    ["protocols", "show"],
    ["protocols", "diff"],
    ["recipes"],
    ["recipes", "list"],
    ["recipes", "show"],
    ["recipes", "check"],
    ["recipes", "schema"],
]


@pytest.mark.parametrize("verb", [[], *VERBS], ids=" ".join)
def test_help_shows_an_example_of_itself(verb: list[str], smalti_cli: Verb) -> None:
    result = smalti_cli(*verb, "--help")
    assert result.exit_code == 0
    assert f"Example: {' '.join(['smalti', *verb])}" in " ".join(result.stdout.split())


def test_every_verb_is_tested_for_help(smalti_cli: Verb) -> None:
    listed = smalti_cli("--help").stdout.partition("Commands:")[2]
    assert {line.split()[0] for line in listed.splitlines() if line.strip()} == {verb[0] for verb in VERBS}


def test_version(smalti_cli: Verb) -> None:
    assert smalti_cli("--version").stdout.strip() == __version__


def test_unknown_verbs_and_options_are_errors_of_the_user(smalti_cli: Verb) -> None:
    for arguments in (["trian"], ["train"], ["train", "x.yaml", "--rezume"]):
        result = smalti_cli(*arguments)
        assert result.exit_code == 2
        assert "Error" in result.stderr


def raising(error: Exception) -> typer.Typer:
    app = typer.Typer(cls=Verbs, rich_markup_mode=None)

    @app.command()
    def fail() -> None:
        raise error

    @app.command()
    def other() -> None: ...

    return app


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (UserError("no such thing"), "error: no such thing\n"),
        (ConfigError([Problem("a", "one"), Problem("b", "two")]), "error: 2 problems:\n  a: one\n  b: two\n"),
        (FileNotFoundError(2, "No such file or directory", "cat.png"), "error: cat.png: No such file or directory\n"),
        (OSError(28, "No space left on device"), "error: No space left on device\n"),
        (OSError("cannot identify image file"), "error: cannot identify image file\n"),
        (SafetensorError("header too large"), "error: header too large\n"),
    ],
)
def test_an_error_of_the_user_is_one_message_and_exit_code_2(error: Exception, message: str) -> None:
    result = CliRunner().invoke(raising(error), ["fail"])
    assert result.exit_code == 2
    assert result.stderr == message
    assert result.stdout == ""


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), KeyError("a bug"), RecursionError()])
def test_a_bug_is_one_message_and_its_traceback_a_file(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = CliRunner().invoke(raising(error), ["fail"])
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: something unforeseen happened in smalti ({type(error).__name__}")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.output
    (report,) = tmp_path.iterdir()
    assert str(report) in result.stderr
    text = report.read_text(encoding="utf-8")
    assert "'fail'" in text
    assert f"smalti {__version__}" in text
    assert "Traceback" in text
    assert f"raise error\n{type(error).__name__}" in text


def test_a_traceback_that_cannot_be_written_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    result = CliRunner().invoke(raising(ValueError("a bug")), ["fail"])
    assert result.exit_code == 3
    assert "cannot be written to a file (No such file or directory)" in result.stderr
    assert "raise error\nValueError: a bug" in result.stderr


def test_a_bug_before_a_verb_runs_is_one_message_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def broken(value: str) -> None:
        raise KeyError(value)

    app = typer.Typer(cls=Verbs, rich_markup_mode=None)

    @app.callback()
    def options(kind: Annotated[str, typer.Option(callback=broken)] = "x") -> None: ...

    @app.command()
    def verb() -> None: ...

    assert CliRunner().invoke(app, ["verb"]).exit_code == 3


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (typer.Exit(7), 7), (typer.Abort(), 1)])
def test_who_stops_is_left_alone(error: Exception, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    result = CliRunner().invoke(raising(error), ["fail"])
    assert result.exit_code == code
    assert "unforeseen" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 29.8 GiB for an array"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes."),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("Storage size calculation overflowed with sizes=[99999999999, 99999999999]"),
    ],
)
def test_memory_that_does_not_suffice_is_told_with_what_to_lower(error: Exception) -> None:
    app = typer.Typer(cls=Verbs, rich_markup_mode=None)

    @app.command()
    def fail(size: int = 1, batch_size: int = 1, name: str = "") -> None:
        raise error

    @app.command()
    def train(recipe: str = "") -> None:
        raise error

    result = CliRunner().invoke(app, ["fail"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: out of memory")
    assert result.stderr.endswith(": lower --size or --batch-size\n")
    assert "data.batch_size" in CliRunner().invoke(app, ["train"]).stderr


def test_debugging_shows_the_traceback_of_every_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMALTI_DEBUG", "1")
    error = UserError("no such thing")
    assert CliRunner().invoke(raising(error), ["fail"]).exception is error


def test_exit_codes_reach_the_shell() -> None:
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "smalti", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})

    plain = run("report", "nowhere")
    assert (plain.returncode, plain.stdout) == (2, "")
    assert plain.stderr.startswith("error: nowhere is not a run folder")
    assert "Traceback" not in plain.stderr
    debugged = run("report", "nowhere", SMALTI_DEBUG="1")
    assert debugged.returncode == 1
    assert "Traceback" in debugged.stderr


def test_a_closed_pipe_is_no_error_message() -> None:
    command = f"{sys.executable} -m smalti --help | head -c 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "U"
    assert done.stderr == ""
