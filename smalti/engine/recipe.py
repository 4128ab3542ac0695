"""A recipe: its sections, where it is found, and everything that can be known of it before data or weights.

``load_recipe`` reads a shipped name (``quickstart``, ``tiny-vqvae``) or a YAML file and validates it whole: one error
lists every problem with its place. ``Recipe.plain`` is the resolved form, defaults filled in, that a run folder stores.

>>> from smalti.engine.recipe import load_recipe
>>> recipe = load_recipe("tiny-vqvae", ["engine.max_steps=5"])
>>> recipe.plain()["engine"]["max_steps"]
5
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import Field

from smalti.config import ConfigError, Document, Problem, Spec, Validator, load, override, plain
from smalti.config.document import merge, parse
from smalti.data import ImageSource
from smalti.data.transforms import Transform
from smalti.discriminators import Discriminator
from smalti.engine.settings import EngineSettings, PhaseOptimizer, ValidationSettings
from smalti.extractors import Extractor
from smalti.losses import Loss
from smalti.metrics import Metric
from smalti.models import Model
from smalti.objectives.term import Term, TermOptions
from smalti.registry import Part, Phase, UserError, short_name, suggest

PLAYERS: tuple[Phase, ...] = get_args(Phase)
TERM_FIELDS = tuple(option.name for option in fields(TermOptions))
TINY = "tiny"


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Images: their ``source``, how they are cropped, and how many make a micro-batch of one rank."""

    source: ImageSource
    transform: Transform = field(default_factory=Transform)
    batch_size: Annotated[int, Field(ge=1)] = 16
    workers: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class ValidationSection(ValidationSettings):
    """Held-out images, how often they are measured and by what; ``metrics`` is a list of names or name -> metric."""

    data: DataSection
    metrics: Mapping[str, Metric] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class OptimSection:
    """One optimizer for each phase of the cycle."""

    generator: PhaseOptimizer
    discriminator: PhaseOptimizer | None = None


SECTIONS: dict[str, Any] = {
    "model": Model,
    "discriminator": Discriminator | None,
    "objective": Any,  # read by hand: a term mixes its loss's options with its own fields
    "data": DataSection,
    "optim": OptimSection,
    "validation": ValidationSection | None,
    "engine": EngineSettings,
    "cycle": Any,  # read by hand: ``discriminator*5`` or a mapping
    TINY: Any,
}
REQUIRED = ("model", "objective", "data", "optim", "engine")


@dataclass
class TermSpec:
    """A validated term: its loss (a class or function with options) and its own fields."""

    loss: Callable[..., Any]
    arguments: dict[str, Any]
    fields: dict[str, Any]
    place: str

    def static(self, name: str) -> Term:
        """The term with the class of its loss in place of the loss, for a check of names."""
        return TermOptions(**{key: _built(value) for key, value in self.fields.items()}).bind(name, self.loss)

    def build(self, name: str) -> Term:
        """The term with its loss built."""
        if isinstance(self.loss, type):
            made = Spec(self.loss, self.arguments, self.place, is_part=True).build()
        else:
            made = partial(self.loss, **{key: _built(value) for key, value in self.arguments.items()})
        return TermOptions(**{key: _built(value) for key, value in self.fields.items()}).bind(name, made)

    def plain(self) -> dict[str, Any]:
        """The mapping a recipe would hold, the loss's defaults filled in."""
        options = Spec(self.loss, self.arguments).plain()
        registered = isinstance(self.loss, type) and issubclass(self.loss, Part)
        own = {key: plain(value) for key, value in self.fields.items()}
        return {"type": short_name(self.loss), **(options if registered else {"options": options}), **own}


@dataclass
class Recipe:
    """A validated recipe.

    Args:
        name: what it was asked for by.
        specs: section -> validated description, ready to build (``objective`` and ``cycle`` apart).
        terms: player -> name -> term.
        teachers: name -> validated extractor.
        cycle: entries as written.
    """

    name: str
    specs: dict[str, Any] = field(default_factory=dict)
    terms: dict[Phase, dict[str, TermSpec]] = field(default_factory=dict)
    teachers: dict[str, Any] = field(default_factory=dict)
    cycle: list[Any] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The resolved recipe, defaults filled in."""
        objective: dict[str, Any] = {
            player: {name: term.plain() for name, term in terms.items()} for player, terms in self.terms.items()
        }
        if self.teachers:
            objective["teachers"] = plain(self.teachers)
        sections = {name: plain(spec) for name, spec in self.specs.items() if spec is not None}
        return {**sections, "objective": objective, "cycle": plain(self.cycle)}


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with smalti; each also has a ``tiny-`` form."""
    folder = resources.files("smalti.recipes")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def read_document(name: str | Path, overrides: Sequence[str] = (), data: str | Path | None = None) -> Document:
    """A recipe as written, its ``tiny`` block and the overrides applied, not validated.

    Args:
        name: a shipped name, ``tiny-`` before one, or a path to a YAML file.
        overrides: ``section.key=value`` each.
        data: folder of images that replaces the data source.
    """
    text = str(name)
    is_path = text.endswith((".yaml", ".yml")) or Path(text).is_file()
    small = not is_path and text.startswith(f"{TINY}-")
    document = load(text) if is_path else _shipped_document(text.removeprefix(f"{TINY}-") if small else text, text)
    block = document.data.get(TINY)
    if small and not block:
        raise UserError(f"recipe {text.removeprefix(f'{TINY}-')!r} has no {TINY} block")
    if isinstance(block, Mapping) and small:
        document.data = merge(document.data, block)
        document.marks |= {place[len(TINY) + 1 :]: mark for place, mark in document.marks.items() if place.startswith(TINY)}
    if small:
        del document.data[TINY]
    for assignment in overrides:
        override(document, assignment)
    if data is not None and isinstance(document.data.get("data"), dict):
        document.data["data"]["source"] = {"type": "image_folder", "path": str(data)}
        document.marks["data.source"] = "(--data)"
    return document


def _shipped_document(name: str, asked: str) -> Document:
    if name not in shipped():
        known = [*shipped(), *(f"{TINY}-{one}" for one in shipped())]
        near = difflib.get_close_matches(asked, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; shipped recipes: {', '.join(shipped())}"
        raise UserError(f"no recipe {asked!r}: expected a shipped name or a path that ends in .yaml{hint}")
    return parse((resources.files("smalti.recipes") / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def load_recipe(name: str | Path, overrides: Sequence[str] = (), data: str | Path | None = None) -> Recipe:
    """Reads and validates a recipe; arguments as for ``read_document``.

    Raises:
        ConfigError: listing every problem, each with its place, file and line.
    """
    return validate(read_document(name, overrides, data), Path(name).stem)


def validate(document: Document, name: str = "recipe") -> Recipe:
    """A document -> a validated recipe.

    Raises:
        ConfigError: listing every problem, each with its place.
    """
    from smalti.engine.checks import graph_problems  # imports this module's Recipe

    validator = Validator()
    recipe = read_sections(document, name, validator)
    problems = [*document.problems, *validator.problems]
    broken = {problem.place for problem in problems}
    problems += [problem for problem in graph_problems(recipe) if problem.place not in broken]
    if problems:
        raise ConfigError([Problem(p.place, p.message, p.where or document.where(p.place)) for p in problems])
    return recipe


def read_sections(document: Document, name: str, validator: Validator) -> Recipe:
    """Validates each section by itself; problems go to ``validator``, what is right comes back."""
    sections = dict(document.data)
    for key in sections:
        if key not in SECTIONS:
            validator.report(key, f"unknown section {key!r}{suggest(key, SECTIONS)}")
    for key in REQUIRED:
        if key not in sections:
            validator.report(key, f"missing section {key!r}")
    recipe = Recipe(name)
    for key, annotation in SECTIONS.items():
        if key in sections and annotation is not Any:
            value = _listed_metrics(sections[key]) if key == "validation" else sections[key]
            recipe.specs[key] = validator.value(value, annotation, key)
    _read_objective(sections.get("objective"), recipe, validator)
    cycle = sections.get("cycle", list(recipe.terms))
    if isinstance(cycle, list):
        recipe.cycle = cycle
    else:
        validator.report("cycle", f"{cycle!r}: expected a list of phases")
    tiny = sections.get(TINY)
    if isinstance(tiny, Mapping) and not validator.problems:
        small = Document(merge({k: v for k, v in sections.items() if k != TINY}, tiny))
        inner = Validator()
        read_sections(small, name, inner)
        validator.problems += [Problem(f"{TINY}.{problem.place}", problem.message) for problem in inner.problems]
    elif tiny is not None and not isinstance(tiny, Mapping):
        validator.report(TINY, f"{tiny!r}: expected a mapping of overrides")
    return recipe


def _listed_metrics(section: Any) -> Any:
    """``metrics: [psnr, ssim]`` is short for ``{psnr: {type: psnr}, ssim: {type: ssim}}``."""
    if not isinstance(section, Mapping) or not isinstance(section.get("metrics"), list):
        return section
    names = section["metrics"]
    return {**section, "metrics": {str(name): {"type": name} if isinstance(name, str) else name for name in names}}


def _read_objective(section: Any, recipe: Recipe, validator: Validator) -> None:
    if section is None:
        return
    if not isinstance(section, Mapping):
        return validator.report("objective", f"{section!r}: expected a mapping of {', '.join(PLAYERS)}, teachers")
    known = (*PLAYERS, "teachers")
    for key in section:
        if key not in known:
            validator.report(f"objective.{key}", f"unknown phase {key!r}{suggest(str(key), known)}")
    if "generator" not in section:
        validator.report("objective.generator", "missing phase 'generator': its terms train the model")
    recipe.teachers = validator.value(section.get("teachers", {}), Mapping[str, Extractor], "objective.teachers") or {}
    for player in PLAYERS:
        terms = section.get(player)
        if player in section and (not isinstance(terms, Mapping) or not terms):
            validator.report(f"objective.{player}", f"{terms!r}: expected a mapping of term names to terms")
        elif isinstance(terms, Mapping):
            read = {str(n): _read_term(t, player, f"objective.{player}.{n}", validator) for n, t in terms.items()}
            recipe.terms[player] = {name: term for name, term in read.items() if term is not None}
    return None


def _read_term(value: Any, player: Phase, place: str, validator: Validator) -> TermSpec | None:
    if not isinstance(value, Mapping):
        return validator.report(place, f"{value!r}: expected a term, a mapping with 'type'")
    inner = Validator(player, validator.trust_code)
    target = inner.type_of(value, Loss, place)
    own = inner.call(TermOptions, {key: item for key, item in value.items() if key in TERM_FIELDS}, place)
    options = {key: item for key, item in value.items() if key not in {*TERM_FIELDS, "type", "options"}}
    if "options" in value:
        extra = value["options"]
        if isinstance(extra, Mapping):
            options = {**options, **extra}
        else:
            inner.report(f"{place}.options", f"{extra!r}: expected a mapping")
    made = inner.call(target, options, place) if target is not None else None
    validator.problems += [_with_fields(problem, place) for problem in inner.problems]
    if made is None or own is None:
        return None
    return TermSpec(target, made.arguments, own.arguments, place)


def _with_fields(problem: Problem, place: str) -> Problem:
    """An unknown option of a loss may be a misspelt field of the term: look there for the nearest name, too."""
    key = problem.place.removeprefix(f"{place}.")
    near = difflib.get_close_matches(key, [*TERM_FIELDS, "type", "options"], n=1)
    if not near or not problem.message.startswith("unknown option") or "did you mean" in problem.message:
        return problem
    return Problem(problem.place, f"{problem.message.partition('; known')[0]}; did you mean {near[0]!r}?")


def _built(value: Any) -> Any:
    return value.build() if isinstance(value, Spec) else value
