"""What a newcomer meets: the command without a verb, and what the shell completes."""

import os
import subprocess
import sys
from pathlib import Path

from smalti.assembly.recipe import shipped
from smalti.cli._app import FIRST, app
from smalti.cli._options import recipe_names
from tests.cli.conftest import Verb


def test_without_a_verb_the_first_five_are_shown(smalti_cli: Verb) -> None:
    result = smalti_cli()
    assert result.exit_code == 0
    assert result.stdout == FIRST + "\n"
    first = FIRST.partition("\n\nMore:")[0]
    begun = [line.split()[1] for line in first.splitlines() if line.startswith("  smalti ")]
    known = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert len(begun) == len(set(begun)) == 5
    assert set(begun) <= known
    assert max(map(len, FIRST.splitlines())) <= 120


def complete(words: str, folder: Path) -> list[str]:
    asked = {"_SMALTI_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    program = "import sys; sys.argv = ['smalti']; from smalti.cli import main; main()"
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, cwd=folder, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_the_shell_completes_verbs(tmp_path: Path) -> None:
    assert set(complete("smalti rec", tmp_path)) == {"reconstruct", "recipes"}


def test_the_shell_completes_recipes(tmp_path: Path) -> None:
    (tmp_path / "quite-mine.yaml").touch()
    assert complete("smalti train qui", tmp_path) == ["quickstart", "quite-mine.yaml"]


def test_names_of_recipes_are_those_that_ship() -> None:
    assert set(shipped()) <= set(recipe_names(""))
    assert set(recipe_names("tiny-")) == {f"tiny-{name}" for name in shipped()}
