"""YAML documents that know where each value stands.

A key that stands twice is a problem (in PyYAML the last one wins); scalars and bounds are those of
``smalti.config.bounded``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from smalti.config.bounded import LONGEST_KEY, MOST_CHARACTERS, MOST_LEVELS, Loader, compose
from smalti.config.problems import ConfigError, Problem
from smalti.registry import UserError, shown


@dataclass
class Document:
    """A parsed YAML file.

    Args:
        data: the mapping.
        marks: dotted place -> ``file:line`` or ``(--set)``.
        problems: what the parser itself found (duplicate keys).
    """

    data: dict[str, Any]
    marks: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def where(self, place: str) -> str:
        """File and line of a place, or of its nearest parent."""
        while place and place not in self.marks:
            place = place.rpartition(".")[0]
        return self.marks.get(place, "")


def parse_scalar(text: str) -> Any:
    """The value a recipe would have for ``text``: what stands right of ``=`` in an override.

    >>> parse_scalar("1e-4"), parse_scalar("no"), parse_scalar("[1, 2]")
    (0.0001, 'no', [1, 2])

    Raises:
        UserError: if it is no YAML, or out of bounds.
    """
    return read_yaml(text, "the value")


def read_yaml(text: str, name: str) -> Any:
    """The value of a YAML text; ``name`` stands for the file in messages.

    Raises:
        UserError: if it is no YAML, or out of bounds, with line and column.
    """
    document = Document({})
    loader, node = compose(text, name)
    value = None if node is None else _value(loader, node, "", name, document)
    if document.problems:
        raise UserError(f"{document.problems[0].where}: {document.problems[0].message}")
    return value


def load(path: str | Path) -> Document:
    """Reads a YAML file whose top level is a mapping.

    Raises:
        UserError: if the file cannot be read or is not YAML, with line and column.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MOST_CHARACTERS + 1)  # enough to see that it is too large
    except FileNotFoundError as error:
        raise UserError(f"no such file: {path}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return parse(text, str(path))


def parse(text: str, name: str = "<text>") -> Document:
    """Parses YAML text; ``name`` stands for the file in messages."""
    loader, node = compose(text, name)
    if not isinstance(node, yaml.MappingNode):
        found = "nothing" if node is None else f"a {str(node.tag).rpartition(':')[2]}"
        raise UserError(f"{name}: expected a mapping of sections, got {found}")
    document = Document({})
    document.data = _mapping(loader, node, "", name, document)
    return document


def _mapping(loader: Loader, node: yaml.MappingNode, place: str, name: str, document: Document) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        key = str(key_node.value)
        here = f"{place}.{key}" if place else key
        where = f"{name}:{key_node.start_mark.line + 1}"
        if key in result:
            document.problems.append(
                Problem(here, f"the key {key!r} stands twice (first {document.where(here)})", where)
            )
            continue
        document.marks[here] = where
        result[key] = _value(loader, value_node, here, name, document)
    return result


def _value(loader: Loader, node: yaml.Node, place: str, name: str, document: Document) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, place, name, document)
    if isinstance(node, yaml.SequenceNode):
        items = []
        for index, item in enumerate(node.value):
            document.marks[f"{place}.{index}"] = f"{name}:{item.start_mark.line + 1}"
            items.append(_value(loader, item, f"{place}.{index}", name, document))
        return items
    return loader.construct_object(node, deep=True)


def override(document: Document, assignment: str) -> None:
    """Applies one ``a.b.c=value`` in place; the value is read as YAML, missing parents are made.

    ``null`` in place of a mapping (a term, a teacher, a section) takes it out, as in ``merge``.

    Raises:
        ConfigError: if there is no ``=``, or a parent is not a mapping.
    """
    place, equals, text = assignment.partition("=")
    if not equals or not all(place.split(".")):
        raise ConfigError([Problem("--set", f"{shown(assignment)}: expected section.key=value")])
    if place.count(".") >= MOST_LEVELS or max(map(len, place.split("."))) > LONGEST_KEY:
        raise ConfigError([Problem("--set", f"{shown(place)}: a place that no recipe has")])
    try:
        value = parse_scalar(text)
    except UserError as error:
        raise ConfigError([Problem(place, f"{shown(text)} is not a value: {error}", "(--set)")]) from error
    *parents, last = place.split(".")
    target: Any = document.data
    for depth, key in enumerate(parents):
        target = target.setdefault(key, {}) if isinstance(target, dict) else _item(target, key)
        if not isinstance(target, (dict, list)):
            done = ".".join(parents[: depth + 1])
            raise ConfigError([Problem(place, f"{done} is {shown(target)}, not a section", "(--set)")])
    if isinstance(target, list):
        _item(target, last)
        target[int(last)] = value
    elif value is None and isinstance(target.get(last), Mapping):
        del target[last]
    else:
        target[last] = value
    for below in [mark for mark in document.marks if mark.startswith(f"{place}.")]:
        del document.marks[below]  # the lines of what was replaced
    document.marks[place] = "(--set)"


def _item(items: list[Any], key: str) -> Any:
    if not re.fullmatch("[0-9]{1,9}", key) or int(key) >= len(items):
        raise ConfigError([Problem(key, f"expected an index below {len(items)} of a list", "(--set)")])
    return items[int(key)]


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` laid on ``base``: mappings merge, anything else replaces; a null takes an entry out.

    A mapping that names another ``type`` replaces the old one whole: its options belong to another class.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    result = dict(base)
    for key, value in over.items():
        old = result.get(key)
        if value is None and key in result:
            del result[key]
        elif isinstance(value, Mapping) and isinstance(old, Mapping) and _same_type(old, value):
            result[key] = merge(old, value)
        else:
            result[key] = value
    return result


def _same_type(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "type" not in new or new["type"] == old.get("type")
