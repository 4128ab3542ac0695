"""The command line, read from the application: every verb with its arguments, options and example."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from _ext.docstrings import escaped
from _ext.pages import Pages, code, indented, title
from smalti.cli._app import app


def write(pages: Pages) -> None:
    """One page with a section for each verb."""
    group: Any = typer.main.get_command(app)
    lead = (
        "``smalti COMMAND --help`` prints the same. Exit codes: 0 for success, 2 for a mistake that you can correct\n"
        "(one message says what it is), 3 for an error of smalti itself.\n"
    )
    sections = [text for name, command in group.commands.items() for text in _sections(f"smalti {name}", command)]
    pages.write("cli.rst", "\n".join([title("Command line"), lead, *sections]))


def _sections(name: str, command: Any) -> Iterator[str]:
    below = getattr(command, "commands", {})
    if not below:
        yield _section(name, command)
    for verb, inner in below.items():
        yield from _sections(f"{name} {verb}", inner)


def _section(name: str, command: Any) -> str:
    text, _, example = (command.help or "").partition("Example: ")
    shown = [param for param in command.params if not param.hidden and param.name != "help"]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    usage = " ".join([name, *map(_metavar, arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f".. _{name.replace(' ', '-')}:\n", title(name, "-")]
    lines += [_prose(paragraph) + "\n" for paragraph in _paragraphs(text)]
    lines.append(code(usage + (f"\n\n# example\n{' '.join(example.split())}" if example else ""), "sh"))
    lines.append(f".. program:: {name}\n")
    for param in (*arguments, *options):
        lines.append(_entry(param))
    return "\n".join(lines)


def _prose(text: str) -> str:
    """Help as reStructuredText: what stands between backquotes, and options, are code.

    >>> _prose("`tiny-` before one; --resume goes on")
    '``tiny-`` before one; ``--resume`` goes on'
    """
    return escaped(re.sub(r"`([^`]+)`|(?<![\w-])(--[a-z][a-z-]+)", lambda code: f"``{code[1] or code[2]}``", text))


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _metavar(param: Any) -> str:
    word = param.metavar or param.name.upper()
    return (word if param.required else f"[{word}]") + ("" if param.nargs == 1 else "...")


def _entry(param: Any) -> str:
    if param.param_type_name == "argument":
        head = _metavar(param).strip("[].")
    else:
        value = "" if getattr(param, "is_flag", False) else f" {param.metavar or _type(param)}"
        names = [*param.opts, *param.secondary_opts]
        head = ", ".join(f"{name}{value}" for name in names)
    return f".. option:: {head}\n\n{indented(_prose(' '.join((param.help or '').split())) + _default(param))}\n"


def _default(param: Any) -> str:
    """What holds if the option is not given: a value, or words where there is no value that says it."""
    if isinstance(param.show_default, str):
        return f" Default: {param.show_default}."
    plain = isinstance(param.default, (int, float, str)) and not isinstance(param.default, bool)
    return f" Default: ``{param.default}``." if plain else ""


def _type(param: Any) -> str:
    """A word for the value of an option, from its annotation."""
    annotation = param.type_descriptor.annotation
    return {"int": "NUMBER", "float": "NUMBER", "Path": "PATH"}.get(getattr(annotation, "__name__", ""), "TEXT")
