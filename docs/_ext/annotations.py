"""Annotations of options, in words: what a recipe may write there."""

import dataclasses
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml

from smalti.config import plain
from smalti.registry import Part

_SCALARS = {int: "int", float: "float", bool: "bool", str: "str", Path: "path", type(None): "``null``"}
_BOUNDS = {"gt": "> {}", "ge": ">= {}", "lt": "< {}", "le": "<= {}", "multiple_of": "a multiple of {}"}


def described(annotation: Any, link: Mapping[type, str]) -> str:
    """A type as reStructuredText.

    Args:
        annotation: of an option.
        link: base class of a kind, or class of nested options -> a reference to where it is described.

    >>> from typing import Annotated
    >>> from pydantic import Field
    >>> described(Annotated[float, Field(gt=0.0, le=1)] | None, {})
    'float > 0.0, <= 1, or ``null``'
    """
    if get_origin(annotation) is typing.Annotated:
        bare, *metadata = get_args(annotation)
        bounds = ", ".join(_bounds(metadata))
        return f"{described(bare, link)} {bounds}".rstrip()
    origin, members = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(f"``{_yaml(choice)}``" for choice in members)
    if origin in {Union, types.UnionType}:
        return _union([described(member, link) for member in members])
    if inspect.isclass(origin) and issubclass(origin, (Mapping, Sequence)):
        return _container(origin, members, link)
    return link.get(annotation) or _SCALARS.get(annotation) or _named(annotation)


def _union(words: list[str]) -> str:
    bounded = any("," in word for word in words[:-1])
    return (", or " if bounded else " or ").join(words)


def _container(origin: type, members: tuple[Any, ...], link: Mapping[type, str]) -> str:
    if issubclass(origin, Mapping):
        return f"mapping of a name to {described(members[1], link)}"
    if origin is tuple and Ellipsis not in members:
        return f"[{', '.join(described(member, link) for member in members)}]"
    return f"list of {described(members[0], link)}"


def _bounds(metadata: list[Any]) -> list[str]:
    flat = [bound for item in metadata for bound in getattr(item, "metadata", [item])]
    return [form.format(getattr(b, name)) for b in flat for name, form in _BOUNDS.items() if hasattr(b, name)]


def _named(annotation: Any) -> str:
    if annotation is Any or annotation is inspect.Parameter.empty or isinstance(annotation, TypeVar):
        return "any"
    return f"``{getattr(annotation, '__name__', annotation)}``"


def default(target: Any, name: str, value: Any) -> str:
    """A default as a recipe writes it; nothing where the option is required.

    >>> default(None, "x", True), default(None, "x", (0.9, 0.99))
    ('``true``', '``[0.9, 0.99]``')
    """
    if dataclasses.is_dataclass(target):
        field = next(field for field in dataclasses.fields(target) if field.name == name)
        if field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
    if dataclasses.is_dataclass(value):
        return "its defaults"
    return "" if value is inspect.Parameter.empty else f"``{_yaml(plain(value))}``"


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000).removesuffix("...\n").strip()


def nested(annotation: Any) -> list[type]:
    """Classes of options (no parts) that an annotation holds, however deep.

    >>> @dataclasses.dataclass
    ... class Options: ...
    >>> nested(Mapping[str, Options] | None) == [Options]
    True
    """
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) and not issubclass(annotation, Part):
        return [annotation]
    return [found for member in get_args(annotation) if not isinstance(member, str) for found in nested(member)]
