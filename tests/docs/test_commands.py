"""Every command of every page exists: its verb, and each of its options."""

import re
import shlex
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from smalti.assembly.recipe import load_recipe, shipped
from smalti.cli._app import app
from tests.docs.pages import blocks, markdown

GROUP: Any = typer.main.get_command(app)


def commands(page: Path) -> list[str]:
    """The lines of a page's blocks that call smalti, without comments; environment and launchers before it are cut."""
    found = []
    for info, body in blocks(page.read_text(encoding="utf-8")):
        if info.split(" ")[0] not in {"", "sh", "bash", "console"}:
            continue
        for line in body.splitlines():
            call = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:torchrun .*? -m )?(smalti .*)", line)
            if call:
                found.append(call[1])
    return found


def unknown(command: str) -> list[str]:
    """The words of a command that smalti does not know."""
    words = shlex.split(command, comments=True)[1:]
    target = GROUP
    while words and words[0] in getattr(target, "commands", {}):
        target = target.commands[words.pop(0)]
    options = {name for param in target.params for name in (*param.opts, *param.secondary_opts)}
    given = [word.partition("=")[0] for word in words if word.startswith("--")]
    wrong = [word for word in given if word not in {*options, "--help", "--install-completion"}]
    verbless = hasattr(target, "commands") and words and not words[0].startswith("-")
    return [words[0]] if verbless else wrong


@pytest.mark.parametrize("page", markdown(), ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    found = {command: unknown(command) for command in commands(page)}
    assert {command: words for command, words in found.items() if words} == {}


@pytest.mark.parametrize("page", markdown(), ids=lambda page: page.name)
def test_values_that_commands_set_fit_their_recipe(page: Path) -> None:
    for command in commands(page):
        words = shlex.split(command, comments=True)[1:]
        if len(words) > 1 and words[0] == "train" and words[1].removeprefix("tiny-") in shipped():
            set_to = [value for option, value in pairwise(words) if option == "--set" and "..." not in value]
            load_recipe(words[1], set_to)


def test_a_command_that_is_not_there_is_found() -> None:
    assert unknown("smalti trian quickstart") == ["trian"]
    assert unknown("smalti train quickstart --owt x  # --no") == ["--owt"]
    assert unknown("smalti recipes shwo x") == ["shwo"]
    assert unknown("smalti bench step --recipe x --set a=b") == []
