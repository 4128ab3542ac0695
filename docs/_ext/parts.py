"""A page for every part that a recipe can name: read from the registry, the signatures and the docstrings."""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import smalti
from _ext.annotations import default, described, nested
from _ext.docstrings import entries, escaped, qualified
from _ext.pages import Pages, code, table, title, toctree
from smalti.assembly.sections import SECTIONS
from smalti.config.schema import option_parameters, type_hints
from smalti.data.transforms import Transform
from smalti.losses import Loss
from smalti.objectives.catalogue import catalogue, sources, summary
from smalti.objectives.term import TermOptions, loss_arguments
from smalti.registry import Part, a, classes

PLACE = {
    "loss": "objective:\n  {phase}:\n    my_term: {part}",
    "model": "model: {part}",
    "encoder": "model:\n  encoder: {part}",
    "decoder": "model:\n  decoder: {part}",
    "bottleneck": "model:\n  bottleneck: {part}",
    "quantizer": "model:\n  bottleneck:\n    type: tokens\n    codebooks:\n      my_codebook: {{quantizer: {part}}}",
    "discriminator": "discriminator: {part}",
    "augmentation": "discriminator:\n  augment: {part}",
    "data source": "data:\n  source: {part}",
    "metric": "validation:\n  metrics:\n    my_metric: {part}",
    "extractor": "objective:\n  teachers:\n    my_teacher: {part}",
}


LEADS = {
    "augmentation": "What is done to images before a discriminator sees them.",
    "bottleneck": "What stands between encoder and decoder: nothing, a Gaussian posterior (KL), or codebooks.",
    "data source": "Where images come from.",
    "decoder": "Latents to images.",
    "discriminator": "Networks that tell real from generated images, and critics of Wasserstein GANs.",
    "encoder": "Images to features.",
    "extractor": "Frozen feature networks: teachers, and the networks of LPIPS and FID.",
    "format": "Checkpoints of other projects, in both directions.",
    "loss": "What a term of an objective computes.",
    "metric": "Numbers about reconstructed or generated images, and about codebooks.",
    "model": "What is trained: autoencoders, generators of images, generators of tokens.",
    "quantizer": "Latent vectors to codes.",
}


def lead(kind: str) -> str:
    """What a kind is, in a line: for a kind that is new, the first sentence of its base class."""
    return LEADS.get(kind) or escaped(qualified(summary(kinds()[kind]), kinds()[kind]))


def walk(cls: type) -> Iterator[type]:
    """All classes below one."""
    for below in cls.__subclasses__():
        yield below
        yield from walk(below)


@cache
def kinds() -> dict[str, type[Part]]:
    """Kind -> its base class, for every kind that has a package of parts."""
    for module in pkgutil.iter_modules(smalti.__path__):
        if module.ispkg:
            importlib.import_module(f"smalti.{module.name}")
    found = [cls for cls in walk(Part) if "kind" in vars(cls) and vars(cls).get("package")]
    return {cls.kind: cls for cls in sorted(found, key=lambda cls: cls.kind)}


def plural(kind: str) -> str:
    """The name of a kind's chapter.

    >>> plural("loss"), plural("data source")
    ('losses', 'data sources')
    """
    return f"{kind}es" if kind.endswith("s") else f"{kind}s"


def chapter(kind: str) -> str:
    """The folder of a kind's pages."""
    return plural(kind).replace(" ", "-")


@cache
def members() -> dict[str, list[type[Part]]]:
    """``kind/name`` -> its classes, for every registered part."""
    return {f"{kind}/{name}": found for kind, base in kinds().items() for name, found in classes(base).items()}


@cache
def registered() -> frozenset[type]:
    """Every class that a short name means."""
    return frozenset(cls for found in members().values() for cls in found)


@cache
def options() -> frozenset[type]:
    """Classes of options: those within the options of a part, the sections of a recipe, and what they hold."""
    sections = [cls for annotation in (*SECTIONS.values(), TermOptions) for cls in nested(annotation)]
    return frozenset([*sections, *(cls for top in (*registered(), *sections) for cls in _reached(top))])


def is_part(obj: Any) -> bool:
    """Whether an object is described by a table of its options: a part, or options of one."""
    return inspect.isclass(obj) and (obj in registered() or obj in options())


@cache
def links() -> dict[type, str]:
    """Base class of a kind, or class of options -> a reference to where it is described."""
    of_kinds = {base: f":doc:`{a(kind)} </reference/parts/{chapter(kind)}/index>`" for kind, base in kinds().items()}
    return {
        **of_kinds,
        **{cls: f":class:`mapping <{cls.__module__}.{cls.__qualname__}>`" for cls in options()},
    }


def write(pages: Pages) -> None:
    """The chapter of each kind."""
    for kind, base in kinds().items():
        _write_kind(pages, kind, base)
    pages.write("parts/transforms.rst", _transforms())
    pages.write("parts/index.rst", _index())


def _index() -> str:
    text = (
        "A *part* is what a recipe names with ``type:``. These pages are made from the docstrings of the\n"
        "version that you read. A class of your own can stand wherever a part can: its import path is the ``type:``.\n"
    )
    rows = [
        (
            f":doc:`{plural(kind)} <{chapter(kind)}/index>`",
            lead(kind),
            str(len(classes(base))),
        )
        for kind, base in kinds().items()
    ]
    rows.append((":doc:`transforms <transforms>`", escaped(summary(Transform)), ""))
    entries = [f"{chapter(kind)}/index" for kind in kinds()]
    listed = table(("kind", "what it is", "parts"), rows, (20, 70, 10))
    return "\n".join([title("All parts"), text, listed, toctree([*entries, "transforms"], hidden=True)])


def _write_kind(pages: Pages, kind: str, base: type[Part]) -> None:
    folder = f"parts/{chapter(kind)}"
    found = classes(base)
    rows = [(f":doc:`{name}`", escaped(_idea(cls)), _paper(cls)) for name, (cls, *_) in found.items()]
    own = [
        title(plural(kind).capitalize()),
        f"{lead(kind)} The base class: {escaped(f':class:`{base.__module__}.{base.__qualname__}`.')}\n",
        table(("``type``", "what it is", "paper"), rows, (20, 60, 20)),
        toctree(found, hidden=True),
    ]
    pages.write(f"{folder}/index.rst", "\n".join(own))
    for name, members in found.items():
        pages.write(f"{folder}/{name}.rst", page(kind, name, members))


def _idea(cls: type[Part]) -> str:
    """One line about a part: the first sentence of its file, which serves both sides of an adversarial pair."""
    doc = inspect.getdoc(importlib.import_module(cls.__module__)) or ""
    return qualified(" ".join(doc.partition("\n\n")[0].split()), cls)


def _paper(cls: type[Part]) -> str:
    return escaped(next(iter(sources(cls)), ""))


def page(kind: str, name: str, members: list[type[Part]]) -> str:
    """The page of one part."""
    module = members[0].__module__
    used = ", ".join(f":doc:`{recipe} </reference/recipes/{recipe}>`" for recipe in users(kind, name))
    home = _home()[module] == kind
    lines = [
        title(name),
        f"*{a(kind).capitalize()}.*" + (f" Used by the recipes {used}." if used else ""),
        "",
        f".. automodule:: {module}\n" + ("" if home else "   :no-index:\n"),
        code(_usage(kind, name, members), "yaml") if kind in PLACE else "",
    ]
    lines += [f".. autoclass:: {module}.{cls.__qualname__}\n   :members:\n" for cls in members]
    rest = [*_rest(module), *_private_options(members)] if home else list(_private_options(members))
    if rest:
        lines += [title("Also in this module", "-"), *rest]
    return "\n".join(lines)


@cache
def _home() -> dict[str, str]:
    """Module -> the kind on whose page its functions stand, for modules that hold parts of several kinds."""
    found: dict[str, str] = {}
    for key, (cls, *_) in members().items():
        found.setdefault(cls.__module__, key.partition("/")[0])
    return found


def _rest(module_name: str) -> Iterator[str]:
    for name, value in vars(importlib.import_module(module_name)).items():
        own = getattr(value, "__module__", None) == module_name and not name.startswith("_") and inspect.getdoc(value)
        if own and inspect.isfunction(value):
            yield f".. autofunction:: {module_name}.{name}\n"
        elif own and inspect.isclass(value) and value not in registered() and value is not Transform:
            yield f".. autoclass:: {module_name}.{name}\n   :members:\n"


def _private_options(members: list[type[Part]]) -> Iterator[str]:
    """Options within options whose module has no page: they stand with the first part that has them."""
    for cls in sorted(options(), key=lambda cls: cls.__qualname__):
        private = any(word.startswith("_") for word in cls.__module__.split("."))
        if private and _first_user(cls) in members:
            yield f".. autoclass:: {cls.__module__}.{cls.__qualname__}\n"


@cache
def _first_user(options: type) -> type | None:
    for found in members().values():
        for cls in found:
            if options in _reached(cls):
                return cls
    return None


def _reached(target: type) -> set[type]:
    found: set[type] = set()
    todo = [target]
    while todo:
        new = [cls for annotation in type_hints(todo.pop()).values() for cls in nested(annotation) if cls not in found]
        found.update(new)
        todo += new
    return found


def _usage(kind: str, name: str, members: list[type[Part]]) -> str:
    """How a recipe names it; options that have no default are dots."""
    texts = []
    for cls in members:
        needed = [key for key, p in option_parameters(cls).items() if p.default is inspect.Parameter.empty]
        part = "{" + ", ".join([f"type: {name}", *(f"{key}: ..." for key in needed)]) + "}"
        text = PLACE[kind].format(part=part, phase=cls.phase or _phase(cls))
        texts.append(text.removeprefix("objective:\n") if texts else text)
    return "\n".join(texts)


@cache
def _phases() -> dict[str, str]:
    return {entry.name: entry.phase for entry in catalogue()}


def _phase(cls: type[Part]) -> str:
    found = _phases().get(cls.__module__.rpartition(".")[2], "any")
    return "generator" if found == "any" else found


def _transforms() -> str:
    module = Transform.__module__
    lead = f"What ``data.transform`` may say.\n\n.. automodule:: {module}\n"
    usage = code("data:\n  transform: {size: 256, crop: adm_random, flip: true}", "yaml")
    rest = [".. autoclass:: " + f"{module}.Transform\n   :members:\n", *_rest(module)]
    return "\n".join([title("Transforms"), lead, usage, *rest])


# --- which recipes use what


@cache
def _uses() -> dict[str, list[str]]:
    from smalti.assembly.recipe import read_document, shipped

    found: dict[str, list[str]] = {}
    for recipe in shipped():
        for kind, name in sorted(set(_named(read_document(recipe, ()).data))):
            found.setdefault(f"{kind}/{name}", []).append(recipe)
    return found


def users(kind: str, name: str) -> list[str]:
    """The shipped recipes that name a part."""
    return _uses().get(f"{kind}/{name}", [])


def _named(value: Any, key: str = "", above: str = "") -> Iterator[tuple[str, str]]:
    """Every (kind, name) below a mapping, told by the key at which it stands."""
    keys = {"source": "data source", "augment": "augmentation"}
    around = {"generator": "loss", "discriminator": "loss", "distances": "loss", "teachers": "extractor"}
    if key == "metrics":
        yield from (("metric", name) for name in value)
    if isinstance(value, Mapping):
        kind = around.get(above) or keys.get(key, key)
        if isinstance(value.get("type"), str):
            yield kind, value["type"]
        for name, item in value.items():
            yield from _named(item, str(name), key)


# --- options


def with_options(obj: Any, lines: list[str]) -> list[str]:
    """A docstring as reStructuredText with a table of options in place of its ``Args``, if it is that of a part."""
    if not is_part(obj):
        return lines
    text = [line for line in lines if not line.startswith(":param ")]
    return [*text, "", *_inputs(obj), *options_table(obj).splitlines(), ""]


def options_table(target: Any) -> str:
    """The options of a class: name, type, default, meaning; nothing if it has none."""
    parameters, hints, meaning = option_parameters(target), type_hints(target), meanings(target)
    if not parameters:
        return "It has no options.\n" if issubclass(target, Part) else ""
    rows = [
        (
            f"``{name}``",
            described(hints.get(name, Any), links()),
            default(target, name, parameter.default) or "*required*",
            escaped(meaning.get(name, "")),
        )
        for name, parameter in parameters.items()
    ]
    return table(("option", "type", "default", "meaning"), rows, (18, 22, 14, 46))


def _inputs(cls: Any) -> list[str]:
    if not issubclass(cls, Loss):
        return []
    found = loss_arguments(cls)
    words = [f"``{name}``" if required else f"``{name}`` (optional)" for name, required in found.items()]
    return [f"**Inputs**: {', '.join(words)}.", ""]


def meanings(target: Any) -> dict[str, str]:
    """Option -> what its class's docstring says about it, or that of the nearest class it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed(inspect.getmro(target)):
        if cls.__doc__ and (dataclasses.is_dataclass(cls) or issubclass(cls, Part)):
            found |= _args(qualified(inspect.cleandoc(cls.__doc__), cls))
    return found


def _args(doc: str) -> dict[str, str]:
    section = re.search(r"^Args:\n((?:[ ]{4}.*\n?|\n)*)", doc, re.MULTILINE)
    return entries(section[1].splitlines()) if section else {}
