"""The JSON schema of recipes, from the same constructor signatures that check them."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import TypeAdapter

from smalti.assembly.fine_tuning import NETWORKS
from smalti.assembly.sections import PLAYERS, REQUIRED, SECTIONS, TERM_FIELDS
from smalti.config.schema import option_parameters, type_hints
from smalti.extractors import Extractor
from smalti.losses import Loss
from smalti.metrics import Metric
from smalti.objectives.term import TermOptions
from smalti.registry import Part, classes

Schema = dict[str, Any]


class Definitions:
    """JSON schemas of annotations; each kind of part is described once and referred to."""

    def __init__(self) -> None:
        self.kinds: dict[str, Schema] = {}

    def of(self, annotation: Any) -> Schema:
        """The schema of one annotation."""
        bare = get_args(annotation)[0] if get_origin(annotation) is typing.Annotated else annotation
        origin = get_origin(bare)
        if origin in {Union, types.UnionType}:
            return self._union(annotation, get_args(bare))
        if origin is Literal:
            return {"enum": list(get_args(bare))}
        if inspect.isclass(origin) and issubclass(origin, (Mapping, Sequence)):
            return self._container(origin, get_args(bare))
        if not inspect.isclass(bare) or bare is inspect.Parameter.empty:
            return {}
        if issubclass(bare, Part):
            return self.kind(bare)
        if dataclasses.is_dataclass(bare):
            return self.call(bare)
        return {"type": "string"} if bare is Path else scalar(annotation)

    def _union(self, annotation: Any, members: tuple[Any, ...]) -> Schema:
        bounds = get_args(annotation)[1:] if get_origin(annotation) is typing.Annotated else ()
        described = []
        for member in members:
            bounded = typing.Annotated[(member, *bounds)] if bounds and member is not type(None) else member
            described.append({"type": "null"} if member is type(None) else self.of(bounded))
        return {"anyOf": described}

    def _container(self, origin: type, members: tuple[Any, ...]) -> Schema:
        if issubclass(origin, Mapping):
            return {"type": "object", "additionalProperties": self.of(members[1])}
        if origin is tuple and Ellipsis not in members:
            count = len(members)
            return {"type": "array", "prefixItems": [self.of(m) for m in members], "minItems": count, "maxItems": count}
        return {"type": "array", "items": self.of(members[0])}

    def kind(self, base: type[Part]) -> Schema:
        """A reference to any part of a kind: a registered one with its options, or a class by its import path."""
        key = base.__name__
        if key not in self.kinds:
            self.kinds[key] = {}  # parts may hold parts of their own kind
            named = [self.part(name, cls) for name, found in classes(base).items() for cls in found]
            self.kinds[key] = {"anyOf": [*named, FOREIGN]}
        return {"$ref": f"#/$defs/{key}"}

    def part(self, name: str, cls: type[Part], extra: Mapping[str, Schema] | None = None) -> Schema:
        """One registered class: its ``type`` and its options."""
        described = self.call(cls)
        properties = {"type": {"const": name}, **described["properties"], **(extra or {})}
        return {**described, "properties": properties, "required": ["type", *described["required"]]}

    def call(self, target: Callable[..., Any]) -> Schema:
        """The options of a class as an object."""
        hints, parameters = type_hints(target), option_parameters(target)
        properties = {name: self._option(hints.get(name, Any), p.default) for name, p in parameters.items()}
        return {
            "type": "object",
            "description": (inspect.getdoc(target) or "").partition("\n")[0],
            "properties": properties,
            "required": [name for name, p in parameters.items() if p.default is inspect.Parameter.empty],
            "additionalProperties": False,
        }

    def _option(self, annotation: Any, default: Any) -> Schema:
        plain = default is None or isinstance(default, (bool, int, float, str))
        return {**self.of(annotation), **({"default": default} if plain else {})}


FOREIGN: Schema = {
    "type": "object",
    "description": "A class from elsewhere, by its import path.",
    "properties": {"type": {"type": "string", "pattern": r"^\w+(\.\w+)+$"}},
    "required": ["type"],
}


STARTED: Schema = {
    "type": "object",
    "description": "A saved network, with options that change it and parts that stay as they are.",
    "properties": {"init": {"type": "string"}, "freeze": {"type": "array", "items": {"type": "string"}}},
    "required": ["init"],
}


def scalar(annotation: Any) -> Schema:
    """A number, string or flag with its bounds."""
    found: Schema = TypeAdapter(annotation).json_schema()
    return found


def recipe_schema() -> Schema:
    """The schema of a whole recipe (JSON Schema 2020-12)."""
    definitions = Definitions()
    sections = {name: definitions.of(kind) for name, kind in SECTIONS.items()}
    for network in NETWORKS:
        sections[network] = {"anyOf": [sections[network], STARTED]}
    teachers = {"type": "object", "additionalProperties": definitions.of(Extractor)}
    sections["objective"] = {
        "type": "object",
        "properties": {**{player: _terms(definitions, player) for player in PLAYERS}, "teachers": teachers},
        "required": ["generator"],
        "additionalProperties": False,
    }
    sections["cycle"] = {"type": "array", "items": {"type": ["string", "object"]}}
    sections["tiny"] = {"type": "object", "description": "Overrides that make the recipe small."}
    _allow_names_of_metrics(definitions, sections)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "smalti recipe",
        "type": "object",
        "properties": sections,
        "required": list(REQUIRED),
        "additionalProperties": False,
        "$defs": definitions.kinds,
    }


def _terms(definitions: Definitions, player: str) -> Schema:
    fields = definitions.call(TermOptions)["properties"]
    own = {name: fields[name] for name in TERM_FIELDS}
    named = [
        definitions.part(name, cls, {**own, "options": {"type": "object"}})
        for name, found in classes(Loss).items()
        for cls in found
        if cls.phase in {None, player}
    ]
    definitions.kinds[f"{player}_term"] = {"anyOf": [*named, FOREIGN]}
    return {"type": "object", "additionalProperties": {"$ref": f"#/$defs/{player}_term"}, "minProperties": 1}


def _allow_names_of_metrics(definitions: Definitions, sections: dict[str, Schema]) -> None:
    """``metrics: [psnr, ssim]`` is short for a mapping."""
    for section in sections["validation"].get("anyOf", [sections["validation"]]):
        if "metrics" in section.get("properties", {}):
            names = {"type": "array", "items": {"enum": list(classes(Metric))}}
            section["properties"]["metrics"] = {"anyOf": [section["properties"]["metrics"], names]}
