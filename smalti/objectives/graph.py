"""Which context names there are, and whether terms fit them: known before any tensor exists.

Everything works from classes, so a recipe can be checked before anything is built::

    graph = Graph(model=Autoencoder, discriminator=True, provides=bottleneck_class.provides,
                  keys={"codebooks": ["visual"], "heads": []}, teachers=["clip"], columns=["image", "mask"])
    graph.names("generator")                          # frozenset of context names; '*' stands for any one part
    graph.check("generator", [options.bind(name, loss_class), ...])   # list of Problem(place, message)

A ``Term`` for this purpose may hold the class of its loss in place of a loss. Names of model outputs come from the
annotations of what ``training_forward`` returns.
"""

import dataclasses
import fnmatch
import inspect
import types
import typing
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin

from smalti.config import Problem
from smalti.objectives.context import draws_images
from smalti.objectives.names import (
    GENERATOR,
    NEEDS_DISCRIMINATOR,
    PREDICTION,
    SHORT_FORMS,
    STEP,
    TARGET,
    is_adversarial,
    is_image_space,
)
from smalti.objectives.term import Term
from smalti.objectives.weight import Plateau
from smalti.outputs import AutoencoderOutput, GeneratorOutput, TokensOutput, output_type
from smalti.registry import Phase, UserError, suggest

PHASES: tuple[Phase, Phase] = ("generator", "discriminator")


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What is known of a recipe before any tensor exists.

    Args:
        model: the model's class, or the model.
        discriminator: whether there is one.
        provides: optional output fields that are filled, such as ``codebooks`` and ``posterior``; None: unknown, all
            are allowed.
        keys: mapping-valued output field -> its keys; a field that is not listed has keys that are not known.
        teachers: names of the teachers.
        columns: columns of a batch.
        images: whether images may be among those of its columns that are not known.
    """

    model: Any
    discriminator: bool = False
    provides: Collection[str] | None = None
    keys: Mapping[str, Collection[str]] = field(default_factory=dict)
    teachers: Collection[str] = ()
    columns: Collection[str] = ("image",)
    images: bool = True

    def names(self, phase: Phase) -> frozenset[str]:
        """The context names of a phase; ``*`` stands for one unknown part of a dotted name."""
        found = {*STEP, "batch", *(f"batch.{column}" for column in self.columns)}
        found |= TARGET if self.has_images else set()
        judged = self.model.judged
        if judged is not None:
            found |= PREDICTION
            found |= NEEDS_DISCRIMINATOR if self.discriminator else set()
        if draws_images(self.model):
            found |= GENERATOR
        if phase == "generator":
            found |= {f"teacher.{name}" for name in self.teachers if self.has_images}
            found |= set(self._outputs())
        return frozenset(found)

    @property
    def has_images(self) -> bool:
        """Whether a batch has images, as far as its columns are known."""
        return "image" in self.columns or ("*" in self.columns and self.images)

    def _outputs(self) -> Iterator[str]:
        for name in self._dotted(output_type(self.model), ""):
            yield name
            short = name.removeprefix("bottleneck.")
            if short != name and short.split(".")[0] in SHORT_FORMS:
                yield short

    def _dotted(self, annotation: Any, prefix: str) -> Iterator[str]:
        if not (dataclasses.is_dataclass(annotation) and isinstance(annotation, type)):
            return
        hints = typing.get_type_hints(annotation)
        for item in dataclasses.fields(annotation):
            kind, optional = _unwrap(hints[item.name])
            mapping = _is_mapping(kind)
            given = self.provides is None or item.name in self.provides
            if mapping and item.name in self.keys:
                given = bool(self.keys[item.name])
            if (optional or mapping) and not given:
                continue
            name = f"{prefix}{item.name}"
            yield name
            if mapping:
                value = get_args(kind)[1] if len(get_args(kind)) == 2 else None
                for key in self.keys.get(item.name) or ["*"]:
                    yield f"{name}.{key}"
                    yield from self._dotted(value, f"{name}.{key}.")
            else:
                yield from self._dotted(kind, f"{name}.")

    def check(self, phase: Phase, terms: Sequence[Term], place: str | None = None) -> list[Problem]:
        """Everything that is wrong with the terms of a phase, at ``<place>.<term>...``.

        Args:
            phase: whose terms they are.
            terms: with losses, or classes of losses.
            place: where they stand in the recipe; by default ``objective.<phase>``.
        """
        place = place or f"objective.{phase}"
        problems = [
            Problem(f"{place}.{term.name}{'.' if where else ''}{where}", message)
            for term in terms
            for where, message in self._term(phase, term)
        ]
        problems += [Problem(f"{place}.{term.name}", message) for term, message in _name_problems(terms)]
        if phase == "generator":
            problems += [Problem(f"{place}.{term.name}.adaptive", message) for term, message in self._adaptive(terms)]
        problems += [Problem(place, message) for message in _phase_problems(phase, terms)]
        return problems

    def _term(self, phase: Phase, term: Term) -> Iterator[tuple[str, str]]:
        made_for = getattr(term.loss, "phase", None)
        if made_for not in (None, phase):
            yield "type", f"this loss is for the {made_for} phase, not for the {phase} phase"
        if term.adaptive and phase == "discriminator":
            yield "adaptive", "an adaptive weight belongs to the generator's phase"
        try:
            arguments, bindings = term.arguments, term.bindings
        except UserError as error:
            yield "type", str(error)
            return
        for argument in term.inputs:
            if argument not in arguments:
                yield f"inputs.{argument}", f"the loss takes no input {argument!r}{suggest(argument, arguments)}"
        known = self.names(phase)
        for argument, name in bindings.items():
            if not is_known(name, known):
                why = self._why_not(phase, name, known)
                if argument in term.inputs:
                    yield f"inputs.{argument}", why
                else:
                    yield "inputs", f"input {argument!r} of the loss has no value: {why}; map it, {argument}: <name>"

    def _why_not(self, phase: Phase, name: str, known: frozenset[str]) -> str:
        other = PHASES[1 - PHASES.index(phase)]
        if is_known(name, self.names(other)):
            return f"{name!r} is not available in the {phase} phase, only in the {other} phase"
        if name in NEEDS_DISCRIMINATOR | PREDICTION:
            if self.model.judged is None:
                return f"{name!r} needs an output that is judged, an image; this model has none"
            return f"{name!r} needs a discriminator; the recipe has none"
        if not self.has_images and name in {*TARGET, *(f"teacher.{one}" for one in self.teachers)}:
            return f"{name!r} needs images; the data have none, only {', '.join(self.columns)}"
        if (owner := _owner(name.partition(".")[0])) is not None and owner is not output_type(self.model):
            return f"{name!r} is what a model gives that returns {owner.__name__}; this one gives {self._given()}"
        everything = dataclasses.replace(self, provides=None, keys={}, discriminator=True)
        if is_known(name, everything.names("generator")):
            return f"{name!r} is not provided by this model{suggest(name, _concrete(known))}"
        if name.startswith("batch."):
            column = name.removeprefix("batch.")
            return f"the data has no column {column!r}{suggest(column, self.columns)}"
        if name.startswith("teacher.") and not self.teachers:
            return f"unknown teacher {name.removeprefix('teacher.')!r}: objective.teachers is empty"
        ending = [one for one in sorted(_concrete(known)) if one.endswith(f".{name}")]
        return f"unknown context name {name!r}{suggest(name, _concrete(known) if not ending else [])}" + (
            f"; did you mean {ending[0]!r}?" if ending else ""
        )

    def _given(self) -> str:
        kind = output_type(self.model)
        names = [item.name for item in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
        return ", ".join(names) or "nothing that is named"

    def _adaptive(self, terms: Sequence[Term]) -> Iterator[tuple[Term, str]]:
        if not self.discriminator:
            yield from ((term, "needs a discriminator; the recipe has none") for term in terms if term.adaptive)
        else:
            yield from adaptive_problems(terms, self.model.judged)


def adaptive_problems(terms: Sequence[Term], judged: str | None) -> list[tuple[Term, str]]:
    """What is wrong with the adaptive weights of a generator's terms, if the adversary judges output ``judged``."""
    return [(term, message) for term in terms if term.adaptive for message in _balance_problems(term, terms, judged)]


def _balance_problems(term: Term, terms: Sequence[Term], judged: str | None) -> Iterator[str]:
    if term.role == "log":
        yield "role='log': a term that is not optimised has no weight to adapt"
    if not is_adversarial(term.reads):
        yield "the term does not listen to the discriminator: an adaptive weight balances an adversary with references"
    elif not is_image_space(term.reads, judged):
        yield "the term needs other outputs of the model than the judged image: it cannot be balanced there"
    named = {other.name: other for other in terms}
    for name in term.adaptive.reference if term.adaptive else ():
        problem = _reference_problem(term, name, named, judged)
        if problem:
            yield f"reference: {problem}"


def _reference_problem(term: Term, name: str, named: Mapping[str, Term], judged: str | None) -> str | None:
    other = named.get(name)
    if other is None:
        return f"unknown term {name!r}{suggest(name, named.keys() - {term.name})}"
    if other is term:
        return f"{name!r} is the term itself"
    if other.adaptive:
        return f"{name!r} has an adaptive weight itself"
    if other.role == "log":
        return f"{name!r} is only logged"
    if not is_image_space(other.reads, judged):
        return f"{name!r} has no gradient at the judged image alone"
    return _later_start(other, term)


def _later_start(other: Term, term: Term) -> str | None:
    """Why ``other`` may be waiting when ``term`` starts."""
    if isinstance(other.start, Plateau):
        same = other.start == term.start
        return None if same else f"{other.name!r} starts at a plateau, perhaps after this term: nothing to balance with"
    if not isinstance(term.start, Plateau) and other.start > term.start:
        return f"{other.name!r} starts at step {other.start}, after this term: nothing to balance with"
    return None


def _name_problems(terms: Sequence[Term]) -> Iterator[tuple[Term, str]]:
    seen = Counter[str]()
    for term in terms:
        seen[term.name] += 1
        if seen[term.name] > 1 and not term.merge:
            yield term, f"two terms are called {term.name!r}: rename one, or add them up with merge: sum"


def _phase_problems(phase: Phase, terms: Sequence[Term]) -> Iterator[str]:
    optimised = [term for term in terms if term.role == "optimize"]
    if not optimised:
        yield f"no term is optimised: the {phase} would not be trained"
    elif all(term.every > 1 for term in optimised):
        yield "every term is lazy: most updates would do nothing; one term needs every: 1"


def is_known(name: str, known: Collection[str]) -> bool:
    """Whether ``name`` is in ``known``, where ``*`` stands for one part of a dotted name.

    >>> is_known("codebooks.visual.z", {"codebooks.*.z"}), is_known("codebooks.visual.y", {"codebooks.*.z"})
    (True, False)
    """
    parts = name.split(".")
    return name in known or any(
        len(pattern.split(".")) == len(parts) and fnmatch.fnmatchcase(name, pattern)
        for pattern in known
        if "*" in pattern
    )


def _owner(name: str) -> type | None:
    """The one kind of output that has a field ``name``, of those that models of this package return."""
    kinds = (AutoencoderOutput, GeneratorOutput, TokensOutput)
    owners = [kind for kind in kinds if name in {item.name for item in dataclasses.fields(kind)}]
    return owners[0] if len(owners) == 1 else None


def _concrete(known: Collection[str]) -> list[str]:
    return [name for name in known if "*" not in name]


def _unwrap(annotation: Any) -> tuple[Any, bool]:
    """The annotation without ``None``, and whether it had it."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        optional = len(members) < len(get_args(annotation))
        return (members[0] if len(members) == 1 else Any), optional
    return annotation, False


def _is_mapping(annotation: Any) -> bool:
    origin = get_origin(annotation) or annotation
    return inspect.isclass(origin) and issubclass(origin, Mapping)
