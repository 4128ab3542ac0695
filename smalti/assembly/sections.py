"""The sections of a recipe: what each may say, read and validated one by one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Annotated, Any, get_args

from pydantic import Field

from smalti.assembly.fine_tuning import NETWORKS, Start, read_start
from smalti.config import Document, Problem, Spec, Validator, plain
from smalti.config.document import merge
from smalti.config.limits import name_problem, repeated
from smalti.data import ImageSource
from smalti.data.transforms import Transform
from smalti.discriminators import Discriminator
from smalti.engine.settings import FP16_REFUSED, EngineSettings, PhaseOptimizer, ValidationSettings
from smalti.extractors import Extractor
from smalti.losses import Loss
from smalti.metrics import Metric
from smalti.models import Model
from smalti.objectives.term import Term, TermOptions
from smalti.registry import Part, Phase, short_name, shown, suggest

PLAYERS: tuple[Phase, ...] = get_args(Phase)
TERM_FIELDS = tuple(option.name for option in fields(TermOptions))
TINY = "tiny"


@dataclass(frozen=True, kw_only=True)
class DataSection:
    """Images: their ``source``, how they are cropped, and how many make a micro-batch of one rank.

    Args:
        source: where the images come from; ``--data DIR`` replaces it by an ``image_folder``.
        transform: how images are resized, cropped and flipped.
        batch_size: images of a micro-batch of one process.
        workers: processes that read images; 0: the training process reads them itself.
    """

    source: ImageSource
    transform: Transform = field(default_factory=Transform)
    batch_size: Annotated[int, Field(ge=1)] = 16
    workers: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, kw_only=True)
class ValidationSection(ValidationSettings):
    """Held-out images, how often they are measured and by what; ``metrics`` is a list of names or name -> metric.

    Under a ``protocol`` (a name of ``smalti protocols list``, ``NAME@SIZE`` or a file) its crop replaces the transform,
    for the objective too; images are rounded, and psnr, ssim and metrics of features taken, as it says.

    Args:
        data: the held-out images.
        metrics: names of metrics, or a mapping of a name to a metric with its options.
        protocol: an evaluation protocol; None: the transform of ``data``, and images that are not rounded.
    """

    data: DataSection
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    protocol: str | None = None


@dataclass(frozen=True, kw_only=True)
class OptimSection:
    """One optimizer for each phase of the cycle.

    Args:
        generator: of the model.
        discriminator: of the discriminator, if there is one.
    """

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
        own = Spec(TermOptions, self.fields).plain()
        return {"type": short_name(self.loss), **(options if registered else {"options": options}), **own}


@dataclass
class Recipe:
    """A validated recipe.

    Args:
        name: what it was asked for by.
        sections: names of the sections it has.
        specs: section -> validated description, ready to build (``objective`` and ``cycle`` apart).
        terms: player -> name -> term.
        term_names: player -> names of all its terms, also of those with problems.
        teachers: name -> validated extractor.
        teacher_names: names of all teachers, also of those with problems.
        model_class: the model's class, also of a model with problems.
        cycle: entries as written.
        starts: network -> where its weights come from, of those that do not start fresh.
    """

    name: str
    sections: frozenset[str] = frozenset()
    specs: dict[str, Any] = field(default_factory=dict)
    terms: dict[Phase, dict[str, TermSpec]] = field(default_factory=dict)
    term_names: dict[Phase, set[str]] = field(default_factory=dict)
    teachers: dict[str, Any] = field(default_factory=dict)
    teacher_names: tuple[str, ...] = ()
    model_class: Any = None
    cycle: list[Any] = field(default_factory=list)
    starts: dict[str, Start] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The resolved recipe, defaults filled in."""
        objective: dict[str, Any] = {
            player: {name: term.plain() for name, term in terms.items()} for player, terms in self.terms.items()
        }
        if self.teachers:
            objective["teachers"] = plain(self.teachers)
        sections = {name: plain(spec) for name, spec in self.specs.items() if spec is not None}
        for name, start in self.starts.items():
            sections[name] |= start.plain()
        return {**sections, "objective": objective, "cycle": plain(self.cycle)}


def read_sections(document: Document, name: str, validator: Validator, *, trust_code: bool = False) -> Recipe:
    """Validates each section by itself; problems go to ``validator``, what is right comes back.

    Args:
        document: the recipe as written.
        name: what it was asked for by.
        validator: collects problems; it says whether the recipe itself may name the user's classes.
        trust_code: whether the saved networks that the recipe starts from may name classes outside smalti, too.
    """
    sections = dict(document.data)
    for key in sections:
        if key not in SECTIONS:
            validator.report(key, f"unknown section {key!r}{suggest(key, SECTIONS)}")
    for key in REQUIRED:
        if key not in sections:
            validator.report(key, f"missing section {key!r}")
    recipe = Recipe(name, frozenset(sections))
    written = dict(sections)
    _read_starts(sections, recipe, validator, trust_code)
    model, aside = sections.get("model"), Validator(trust_code=validator.trust_code)
    recipe.model_class = aside.type_of(model, Model, "") if isinstance(model, Mapping) else None
    for key, annotation in SECTIONS.items():
        if key in sections and annotation is not Any:
            value = _listed_metrics(sections[key], validator) if key == "validation" else sections[key]
            recipe.specs[key] = validator.value(value, annotation, key)
    _refuse_fp16(sections.get("engine"), validator)
    _read_objective(sections.get("objective"), recipe, validator)
    cycle = sections.get("cycle", list(recipe.terms))
    if isinstance(cycle, list):
        recipe.cycle = cycle
    else:
        validator.report("cycle", f"{cycle!r}: expected a list of phases")
    _check_tiny(written, name, validator, trust_code)
    return recipe


def _read_starts(sections: dict[str, Any], recipe: Recipe, validator: Validator, trust_code: bool) -> None:
    """Puts the options of saved networks under those of the recipe; a section that cannot be read is left out."""
    for key in NETWORKS:
        if not isinstance(sections.get(key), Mapping):
            continue
        sections[key], start = read_start(sections[key], key, validator, trust_code=trust_code)
        if start is not None:
            recipe.starts[key] = start
        if sections[key] is None:
            del sections[key]


def _check_tiny(sections: Mapping[str, Any], name: str, validator: Validator, trust_code: bool) -> None:
    """Reads the recipe once more, with the overrides of its tiny form."""
    tiny = sections.get(TINY)
    if isinstance(tiny, Mapping) and not validator.problems:
        small = Document(merge({k: v for k, v in sections.items() if k != TINY}, tiny))
        inner = Validator(trust_code=validator.trust_code)
        read_sections(small, name, inner, trust_code=trust_code)
        validator.problems += [Problem(f"{TINY}.{problem.place}", problem.message) for problem in inner.problems]
    elif tiny is not None and not isinstance(tiny, Mapping):
        validator.report(TINY, f"{tiny!r}: expected a mapping of overrides")


def _refuse_fp16(section: Any, validator: Validator) -> None:
    """Says why, where the list of choices would only say no."""
    if isinstance(section, Mapping) and section.get("precision") == "fp16":
        validator.problems = [problem for problem in validator.problems if problem.place != "engine.precision"]
        validator.report("engine.precision", FP16_REFUSED)


def _listed_metrics(section: Any, validator: Validator) -> Any:
    """``metrics: [psnr, ssim]`` is short for ``{psnr: {type: psnr}, ssim: {type: ssim}}``."""
    if not isinstance(section, Mapping) or not isinstance(section.get("metrics"), list):
        return section
    listed = section["metrics"]
    for twice in repeated(name for name in listed if isinstance(name, str)):
        validator.report("validation.metrics", f"{shown(twice)} stands twice")
    named = {str(name).rpartition(".")[2]: {"type": name} if isinstance(name, str) else name for name in listed}
    return {**section, "metrics": named}


def _read_objective(section: Any, recipe: Recipe, validator: Validator) -> None:
    if section is None:
        return
    if not isinstance(section, Mapping):
        validator.report("objective", f"{section!r}: expected a mapping of {', '.join(PLAYERS)}, teachers")
        return
    known = (*PLAYERS, "teachers")
    for key in section:
        if key not in known:
            validator.report(f"objective.{key}", f"unknown phase {key!r}{suggest(str(key), known)}")
    if "generator" not in section:
        validator.report("objective.generator", "missing phase 'generator': its terms train the model")
    teachers = validator.value(section.get("teachers", {}), Mapping[str, Extractor], "objective.teachers") or {}
    recipe.teachers = {name: teacher for name, teacher in teachers.items() if teacher is not None}
    recipe.teacher_names = tuple(teachers)
    for player in PLAYERS:
        terms = section.get(player)
        if player in section and (not isinstance(terms, Mapping) or not terms):
            validator.report(f"objective.{player}", f"{terms!r}: expected a mapping of term names to terms")
        elif isinstance(terms, Mapping):
            read = _read_terms(terms, player, validator)
            recipe.term_names[player] = set(read)
            recipe.terms[player] = {name: term for name, term in read.items() if term is not None}


def _read_terms(terms: Mapping[Any, Any], player: Phase, validator: Validator) -> dict[str, TermSpec | None]:
    read = {}
    for key, term in terms.items():
        name, place = str(key), f"objective.{player}"
        if (message := name_problem(name)) is not None:
            validator.report(place, message)
        read[name] = _read_term(term, player, f"{place}.{name}", validator)
    return read


def _read_term(value: Any, player: Phase, place: str, validator: Validator) -> TermSpec | None:
    if not isinstance(value, Mapping):
        validator.report(place, f"{value!r}: expected a term, a mapping with 'type'")
        return None
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
    made = inner.call(target, options, place, also=TERM_FIELDS) if target is not None else None
    validator.problems += inner.problems
    if made is None or own is None:
        return None
    return TermSpec(target, made.arguments, own.arguments, place)


def _built(value: Any) -> Any:
    return value.build() if isinstance(value, Spec) else value
