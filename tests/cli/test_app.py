"""What all verbs share: help with an example, and one place where errors become messages."""

import os
import subprocess
import sys

import pytest
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
    ["reconstruct"],
    ["encode"],
    ["convert"],
    ["latent-stats"],
    ["sample"],
    ["report"],
    ["bench"],
    ["bench", "quantizer"],
    ["bench", "step"],
    ["bench", "data"],
    ["bench", "encode"],
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


@pytest.mark.parametrize("error", [ValueError("a bug"), RuntimeError("a bug"), KeyError("a bug")])
def test_a_bug_keeps_its_traceback(error: Exception) -> None:
    result = CliRunner().invoke(raising(error), ["fail"])
    assert result.exit_code == 1
    assert result.exception is error


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
