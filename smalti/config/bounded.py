"""YAML and JSON from anywhere, within bounds: what a file says cannot cost more than reading it.

A short YAML text can mean a huge one (aliases of aliases), hold itself, or nest deeper than Python calls functions; a
tag can ask for any class, a number have thousands of digits. All of it is refused where it stands, before a value is
made of it.

Scalars are those of YAML 1.2, other than PyYAML's: ``1e-4`` is a number, ``yes``, ``no``, ``on`` and ``off`` are words,
``010`` and ``1:30`` are neither octal nor sexagesimal.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from smalti.registry import UserError, shown

MOST_CHARACTERS = 2**18
MOST_NODES = 10_000  # after aliases are replaced by what they stand for
MOST_LEVELS = 40
LONGEST_NUMBER = 100
LONGEST_TEXT = 10_000
LONGEST_KEY = 200

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class OutOfBoundsError(yaml.MarkedYAMLError):
    """Valid YAML that is larger, deeper or stranger than a configuration."""

    def __init__(self, problem: str, mark: Any) -> None:
        super().__init__(problem=problem, problem_mark=mark)


class Loader(yaml.SafeLoader):
    """PyYAML's reader with YAML 1.2 scalars; it composes no node that is out of bounds."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._nodes = 0
        self._levels = [0]  # of each open node: levels below it so far
        self._extent: dict[int, tuple[int, int]] = {}  # id of a complete node -> its nodes and levels

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node, with all that is below it.

        Raises:
            OutOfBoundsError: naming what is out of bounds.
        """
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(parent, yaml.MappingNode) and index is None:
            _check_key(event)
        if isinstance(event, yaml.AliasEvent) and event.anchor in self.anchors:
            extent = self._extent.get(id(self.anchors[event.anchor]))
            if extent is None:
                raise OutOfBoundsError(f"the anchor {event.anchor!r} holds itself", event.start_mark)
            self._add(*extent, event.start_mark)
            return super().compose_node(parent, index)
        if getattr(event, "tag", None) is not None:
            tag = str(event.tag).replace("tag:yaml.org,2002:", "!!")
            raise OutOfBoundsError(f"the tag {shown(tag)}: a configuration has none", event.start_mark)
        before = self._nodes
        self._add(1, 1, event.start_mark)
        self._levels.append(0)
        node = super().compose_node(parent, index)
        levels = self._levels.pop() + 1
        self._levels[-1] = max(self._levels[-1], levels)
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        self._extent[id(node)] = (self._nodes - before, levels)
        return node

    def _add(self, nodes: int, levels: int, mark: Any) -> None:
        self._nodes += nodes
        self._levels[-1] = max(self._levels[-1], levels)
        if self._nodes > MOST_NODES:
            raise OutOfBoundsError(f"more than {MOST_NODES:,} values", mark)
        if len(self._levels) - 1 + levels > MOST_LEVELS:
            raise OutOfBoundsError(f"more than {MOST_LEVELS} levels inside each other", mark)


def _check_key(event: Any) -> None:
    if not isinstance(event, yaml.ScalarEvent):
        raise OutOfBoundsError("a key that is no word", event.start_mark)
    if len(event.value) > LONGEST_KEY:
        raise OutOfBoundsError(f"a key of {len(event.value):,} characters", event.start_mark)


def _check_scalar(node: yaml.ScalarNode) -> None:
    length = len(node.value)
    if node.tag.endswith((":int", ":float")) and length > LONGEST_NUMBER:
        raise OutOfBoundsError(f"a number of {length:,} digits", node.start_mark)
    if length > LONGEST_TEXT:
        raise OutOfBoundsError(f"a text of {length:,} characters: expected at most {LONGEST_TEXT:,}", node.start_mark)
    odd = _NO_TEXT.search(node.value)
    if odd:
        raise OutOfBoundsError(f"the character {odd[0]!r}, which no text has", node.start_mark)


Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


class _Dumper(yaml.SafeDumper):
    """Quotes what either YAML would not read as text: ``1e5`` as well as ``yes``; repeats instead of aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _first_character, _resolvers in Loader.yaml_implicit_resolvers.items():
    for _tag, _regexp in _resolvers:
        _Dumper.add_implicit_resolver(_tag, _regexp, [_first_character])


def dump(value: Any) -> str:
    """YAML text of plain values that reads as the same values, in the order they have."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def compose(text: str, name: str) -> tuple[Loader, yaml.Node | None]:
    """The node of a YAML text, None of an empty one, and the loader that makes values of its scalars.

    Args:
        text: YAML.
        name: stands for the file in messages.

    Raises:
        UserError: if it is no YAML or out of bounds, with line and column.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{name}: larger than a configuration, which has at most {MOST_CHARACTERS:,} characters")
    try:
        loader = Loader(text)
        return loader, loader.get_single_node()
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"{name}:{number}: not YAML: it holds the control character {chr(error.character)!r}"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        kind = "" if isinstance(error, OutOfBoundsError) else "not YAML: "
        raise UserError(f"{name}{line}: {kind}{getattr(error, 'problem', None) or error}") from error


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        UserError: if it is no UTF-8, with the first byte that is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        place = f"byte {error.start} is 0x{error.object[error.start]:02x}"
        raise UserError(f"{path}: it is no text in UTF-8 ({place})") from error


def read_json(text: str, name: str) -> Any:
    """The value of a JSON text.

    Args:
        text: JSON.
        name: stands for the file in messages.

    Raises:
        UserError: if it is no JSON, or nests deeper than a configuration does.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise UserError(f"{name}: more than {MOST_LEVELS} levels inside each other") from None
    except ValueError as error:
        raise UserError(f"{name}: damaged, it is no JSON ({error})") from error
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > MOST_LEVELS:
            raise UserError(f"{name}: more than {MOST_LEVELS} levels inside each other")
        level = [item for value in level for item in _below(value)]
    return found


def _below(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value.values())
    return value if isinstance(value, list) else []
