"""Key tables: one declaration of how a format names its tensors, used in both directions.

A pattern is a key with ``{name}`` in place of whole numbers. ``{~name}`` counts from the other end: the decoders of
latent-diffusion number their levels from the finest, ours stand in the order of execution.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Shape = tuple[int, ...]
_HOLE = re.compile(r"\{(~?)(\w+)\}")


@dataclass(frozen=True)
class Rule:
    """One kind of key there and here.

    Args:
        theirs: pattern of the foreign key.
        ours: pattern of our key, with the same names.
        form: ``linear``: there a matrix (c, d), here a 1x1 convolution (c, d, 1, 1); ``kernel``: the other way round;
            ``first`` and ``rest``: here the first row and the other rows of what is one tensor there.
        direction: ``in``: an older spelling, understood and never written.
    """

    theirs: str
    ours: str
    form: Literal["same", "linear", "kernel", "first", "rest"] = "same"
    direction: Literal["both", "in"] = "both"

    def take(self, value: Tensor) -> Tensor:
        """What we hold of their tensor."""
        if self.form == "linear" and value.ndim == 2:
            return value[:, :, None, None]
        if self.form == "kernel" and value.shape[2:] == (1, 1):
            return value[:, :, 0, 0]
        if self.form in {"first", "rest"} and value.ndim:
            return value[:1] if self.form == "first" else value[1:]
        return value

    def give(self, value: Tensor) -> Tensor:
        """What they hold of our tensor."""
        if self.form == "kernel":
            return value[:, :, None, None]
        return value[:, :, 0, 0] if self.form == "linear" else value

    def shape_there(self, ours: Shape, theirs: Shape) -> Shape:
        """The shape they need for ours; ``theirs`` is what the file has."""
        if self.form == "linear":
            return ours[:2]
        if self.form == "kernel":
            return (*ours, 1, 1)
        if self.form in {"first", "rest"}:
            return (ours[0] + 1 if self.form == "rest" else theirs[0] if theirs else 1, *ours[1:])
        return ours


@dataclass(frozen=True)
class Note:
    """Keys that have no counterpart, and why.

    Args:
        pattern: regular expression that matches the beginning of a key.
        reason: shown to the user.
    """

    pattern: str
    reason: str

    def covers(self, key: str) -> bool:
        """Whether it speaks of ``key``."""
        return re.match(self.pattern, key) is not None


def layer(
    theirs: str, ours: str, parts: Mapping[str, str] | None = None, *, linear: Sequence[str] = (), old: bool = False
) -> list[Rule]:
    """The weight and bias of a layer, or of several layers inside a block.

    >>> [rule.ours for rule in layer("conv_out", "head.conv")]
    ['head.conv.weight', 'head.conv.bias']

    Args:
        theirs: pattern of the layer or block.
        ours: pattern of ours.
        parts: layer there -> layer here, inside a block.
        linear: layers that are matrices there and 1x1 convolutions here.
        old: an older spelling that is read and not written.
    """
    pairs = {"": ""} if parts is None else parts
    return [
        Rule(
            _join(theirs, there, leaf),
            _join(ours, here, leaf),
            "linear" if there in linear and leaf == "weight" else "same",
            "in" if old else "both",
        )
        for there, here in pairs.items()
        for leaf in ("weight", "bias")
    ]


@dataclass(frozen=True)
class Table:
    """All keys of one format.

    Args:
        rules: what is translated.
        dropped: foreign keys that we have no use for.
        own: our keys that the format has no place for.
        levels: resolutions, for ``{~name}``.
        constants: foreign keys that are written beside their layer, because the original's loader asks for them.
    """

    rules: Sequence[Rule]
    dropped: Sequence[Note] = ()
    own: Sequence[Note] = ()
    levels: int = 1
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    _found: dict[str, list[tuple[str, Rule]]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _begin: dict[str, list[Rule]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Puts the rules in groups by what their foreign keys begin with."""
        for rule in self.rules:
            self._begin.setdefault(rule.theirs.partition("{")[0], []).append(rule)

    def ours(self, key: str) -> list[tuple[str, Rule]]:
        """Our keys for one of theirs, with the rule: none if it is unknown, two if it is cut."""
        if key not in self._found:  # every key is asked for several times
            fitting = (rule for begin, rules in self._begin.items() if key.startswith(begin) for rule in rules)
            moved = ((self._move(key, rule.theirs, rule.ours), rule) for rule in fitting)
            self._found[key] = [(name, rule) for name, rule in moved if name is not None]
        return self._found[key]

    def theirs(self, key: str) -> tuple[str, Rule] | None:
        """Their key for one of ours, with the rule."""
        for rule in self.rules:
            if rule.direction == "both" and (found := self._move(key, rule.ours, rule.theirs)) is not None:
                return found, rule
        return None

    def why_dropped(self, key: str) -> str | None:
        """The reason why a foreign key is not imported, or None."""
        return next((note.reason for note in self.dropped if note.covers(key)), None)

    def why_own(self, key: str) -> str | None:
        """The reason why one of our keys is not exported, or None."""
        return next((note.reason for note in self.own if note.covers(key)), None)

    def _move(self, key: str, source: str, target: str) -> str | None:
        match = _compiled(source).fullmatch(key)
        if match is None:
            return None
        turned = {hole[2] for hole in _HOLE.finditer(source + target) if hole[1]}
        numbers = {
            name: self.levels - 1 - int(text) if name in turned else int(text)
            for name, text in match.groupdict().items()
        }
        if any(number < 0 for number in numbers.values()):
            return None
        return _HOLE.sub(lambda hole: str(numbers[hole[2]]), target)


_patterns: dict[str, re.Pattern[str]] = {}


def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern not in _patterns:
        pieces = re.split(r"(\{~?\w+\})", pattern)
        text = "".join(
            f"(?P<{hole[2]}>[0-9]+)" if (hole := _HOLE.fullmatch(piece)) else re.escape(piece) for piece in pieces
        )
        _patterns[pattern] = re.compile(text)
    return _patterns[pattern]


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


@dataclass
class Translation:
    """A state dict in the other language.

    Args:
        state: translated.
        dropped: reason -> keys of the source that were left out.
        problems: everything that does not fit, one line each.
    """

    state: dict[str, Tensor] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def to_ours(state: Mapping[str, Tensor], table: Table, expected: Mapping[str, Tensor]) -> Translation:
    """A foreign state dict under our names.

    Args:
        state: foreign.
        table: of its format.
        expected: our state dict, for its shapes (values are not read); what the format lacks is filled with zeros.
    """
    made = Translation()
    for key, value in state.items():
        reason = table.why_dropped(key)
        if reason is not None:
            made.dropped.setdefault(reason, []).append(key)
            continue
        found = [(name, rule) for name, rule in table.ours(key) if name in expected]
        if not found:
            made.problems.append(f"unexpected {key}")
        for name, rule in found:
            piece, wanted = rule.take(value), tuple(expected[name].shape)
            if tuple(piece.shape) == wanted:
                made.state[name] = piece
                continue
            line = f"{key} has shape {tuple(value.shape)}, expected {rule.shape_there(wanted, tuple(value.shape))}"
            if line not in made.problems:
                made.problems.append(line)
    known = made.state.keys() | {name for key in state for name, _ in table.ours(key)}
    missing = [name for name in expected if name not in known and table.why_own(name) is None]
    made.problems += dict.fromkeys(f"missing {_their_name(name, table)}" for name in missing)
    for name, value in expected.items():
        if name not in made.state and table.why_own(name) is not None:
            made.state[name] = torch.zeros(value.shape, dtype=value.dtype)
    return made


def _their_name(name: str, table: Table) -> str:
    found = table.theirs(name)
    return found[0] if found else f"{name} (ours)"


def to_theirs(state: Mapping[str, Tensor], table: Table) -> Translation:
    """One of our state dicts under foreign names."""
    made = Translation()
    parts: dict[str, list[Tensor]] = {}
    for name, value in state.items():
        reason = table.why_own(name)
        if reason is not None:
            made.dropped.setdefault(reason, []).append(name)
            continue
        found = table.theirs(name)
        if found is None:
            made.problems.append(f"{name} has no place in this format")
            continue
        key, rule = found
        pieces = parts.setdefault(key, [])
        pieces.insert(0 if rule.form == "first" else len(pieces), rule.give(value))
    made.state = {key: pieces[0] if len(pieces) == 1 else torch.cat(pieces) for key, pieces in parts.items()}
    for key, value in table.constants.items():
        if any(other.startswith(key.rpartition(".")[0] + ".") for other in made.state):
            made.state[key] = value.clone()
    return made


def unexplained(keys: Iterable[str], table: Table) -> list[str]:
    """Foreign keys that no rule and no note speaks of."""
    return [key for key in keys if table.why_dropped(key) is None and not table.ours(key)]
