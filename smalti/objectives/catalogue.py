"""The catalogue of terms: what ``type:`` can say, read from the losses themselves.

A loss's docstrings hold its formula and its source, its signature the inputs; so a new file in ``smalti/losses`` is in
the table without a line elsewhere. ``docs/terms.md`` is ``smalti recipes terms --markdown``.
"""

import importlib
import inspect
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from smalti.config.schema import option_parameters
from smalti.losses import Loss
from smalti.objectives.names import NEEDS_DISCRIMINATOR
from smalti.objectives.term import loss_arguments
from smalti.registry import Part, classes

_SOURCE = r"arXiv:\d{4}\.\d{4,5}|doi:10\.\d+/(?:\([^\s()]*\)|[^\s(),;])*[^\s(),;.]"
_CITED = re.compile(rf"\s*\((?:[^()]|\([^()]*\))*?(?:{_SOURCE})(?:[^()]|\([^()]*\))*\)")
_PLAYER = re.compile(r"For the (generator|discriminator|critic)'s phase")
_REFERRED = re.compile(r":func:`(\w+)`")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One class of loss.

    Args:
        name: what a recipe writes after ``type:``.
        phase: whom it is made to train; ``any`` for a loss that serves both players.
        formula: what it computes, the first sentence of its docstring.
        inputs: arguments that are bound by their names, or by ``inputs:``.
        optional: inputs that are bound only if ``inputs:`` maps them.
        options: the constructor's arguments.
        paper: where it is from, the first source that its docstrings name.
        looks_at: what it looks at of a batch as a whole; nothing for a mean over samples, which accumulation over
            micro-batches leaves as it is.
    """

    name: str
    phase: str
    formula: str
    inputs: tuple[str, ...]
    optional: tuple[str, ...]
    options: tuple[str, ...]
    paper: str
    looks_at: str

    def plain(self) -> dict[str, Any]:
        """As a mapping, for JSON."""
        return asdict(self)


def catalogue() -> list[Entry]:
    """Every registered loss by name; the two classes of an adversarial pair follow each other, generator first."""
    found = [_entry(name, cls) for name, members in classes(Loss).items() for cls in members if issubclass(cls, Loss)]
    return sorted(found, key=lambda entry: (entry.name, entry.phase != "generator"))


def _entry(name: str, cls: type[Loss]) -> Entry:
    arguments = loss_arguments(cls)
    return Entry(
        name=name,
        phase=_phase(cls, arguments),
        formula=_formula(cls),
        inputs=tuple(argument for argument, required in arguments.items() if required),
        optional=tuple(argument for argument, required in arguments.items() if not required),
        options=tuple(option_parameters(cls)),
        paper=next(sources(cls), ""),
        looks_at=", ".join(cls.batch_statistics.values()),
    )


def _phase(cls: type[Loss], inputs: Collection[str]) -> str:
    """As declared by the class, else as its docstring says; without the discriminator a loss trains the generator."""
    if cls.phase is not None:
        return cls.phase
    said = _PLAYER.search(" ".join((inspect.getdoc(cls) or "").split()))
    if said is not None:
        return "generator" if said[1] == "generator" else "discriminator"
    return "generator" if NEEDS_DISCRIMINATOR.isdisjoint(inputs) else "any"


def _formula(cls: type[Loss]) -> str:
    """The first sentence of a class, its source apart; where it names a function, that function's sentence follows."""
    first = summary(cls)
    referred = _REFERRED.search(first)
    own = _without_source(first.replace(":func:", "").replace("``", "`"))
    if referred is None:
        return own
    function = getattr(importlib.import_module(cls.__module__), referred[1])
    return f"{own}: {_without_source(summary(function))}"


def summary(thing: Any) -> str:
    """The first paragraph of a docstring in one line.

    >>> summary(summary)
    'The first paragraph of a docstring in one line.'
    """
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def _without_source(text: str) -> str:
    return _CITED.sub("", text).strip().rstrip(".")


def sources(cls: type[Part]) -> Iterator[str]:
    """Papers of a part in the order in which a reader meets them: class, functions of the file, module."""
    module = importlib.import_module(cls.__module__)
    functions = [value for value in vars(module).values() if inspect.isfunction(value)]
    own = [function for function in functions if function.__module__ == cls.__module__]
    for thing in (cls, getattr(cls, "forward", None), *own, module):
        text = " ".join((inspect.getdoc(thing) or "").split())
        yield from (match[0] for match in re.finditer(_SOURCE, text))


def as_markdown(entries: Sequence[Entry]) -> str:
    """The page ``docs/terms.md``.

    Args:
        entries: in the order in which they are to stand.
    """
    rows = [
        (f"`{entry.name}`", entry.phase, _cell(entry.formula), _inputs(entry), _link(entry.paper)) for entry in entries
    ]
    head = ("`type`", "phase", "what it computes", "inputs (optional ones in brackets)", "paper")
    lines = [head, tuple("---" for _ in head), *rows]
    return HEADER + "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def batch_table(entries: Sequence[Entry]) -> str:
    """The terms that are no mean over samples, by what they look at: a table of ``docs/several-processes.md``.

    Args:
        entries: of the catalogue.
    """
    names: dict[str, list[str]] = {}
    for entry in entries:
        if entry.looks_at and f"`{entry.name}`" not in names.setdefault(entry.looks_at, []):
            names[entry.looks_at].append(f"`{entry.name}`")
    head = "| term | what it looks at, of each micro-batch by itself |\n| --- | --- |\n"
    return head + "".join(f"| {', '.join(of)} | {text} |\n" for text, of in names.items())


HEADER = """# All terms

This page lists every loss that can be a term of a recipe. It is written by `smalti recipes terms --markdown`, from the
docstrings of the losses. An input gets the value of the same name. Inputs in brackets are optional, and are used only
if the term's `inputs:` maps them. `smalti recipes terms --json` also lists the options of each loss. If a loss is
missing, [write your own](losses.md).

"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")


def _inputs(entry: Entry) -> str:
    return ", ".join([*(f"`{name}`" for name in entry.inputs), *(f"[`{name}`]" for name in entry.optional)])


def _link(paper: str) -> str:
    kind, _, number = paper.partition(":")
    where = {"arXiv": "https://arxiv.org/abs/", "doi": "https://doi.org/"}.get(kind)
    return f"[{paper}]({where}{number})" if where else paper
