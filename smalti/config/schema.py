"""Constructor signatures as schemas: validate a mapping, build the object, dump it again.

An argument annotated with a kind's base class is a nested ``{type: ..., options}``; ``Mapping[str, X]`` and
``Sequence[X]`` recurse; a frozen dataclass of options is a mapping of its own arguments and needs no ``type``. Bounds
come from ``Annotated``, choices from ``Literal``; scalars are checked by pydantic in strict mode, so ``true`` is no
number and ``'3'`` is not 3. Validation never stops at the first problem.
"""

import dataclasses
import inspect
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin
from weakref import WeakKeyDictionary

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError

from smalti.config.limits import key_problem, name_problem, number_problem, number_problems, repeated
from smalti.config.problems import ConfigError, Problem
from smalti.config.trust import refusal
from smalti.registry import Part, Phase, UserError, a, arguments_of, resolve, short_name, shown, suggest

_P = TypeVar("_P")
_built: "WeakKeyDictionary[Any, Spec]" = WeakKeyDictionary()


@dataclass
class Spec:
    """A validated description of an object: what to call with which arguments (which may hold further specs)."""

    target: Callable[..., Any]
    arguments: dict[str, Any]
    place: str = ""
    is_part: bool = False

    def build(self) -> Any:
        """Builds the object, innermost parts first.

        Raises:
            ConfigError: if a constructor refuses its arguments, with the place.
        """
        arguments = {name: _build(value) for name, value in self.arguments.items()}
        try:
            made = self.target(**arguments)
        except ConfigError:
            raise
        except (ValueError, TypeError) as error:
            raise ConfigError([Problem(self.place, str(error))]) from error
        except (ImportError, OSError):
            raise  # something that is missing or cannot be read, and no argument
        except Exception as error:  # of a class from elsewhere, or torch's of a size beyond its numbers
            why = f"cannot be built: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise ConfigError([Problem(self.place, why)]) from error
        if self.is_part and not isinstance(made, Part):
            _built[made] = self
        return made

    def plain(self) -> dict[str, Any]:
        """The mapping that describes it, defaults filled in."""
        head = {"type": short_name(self.target)} if self.is_part else {}
        return {**head, **{name: plain(value) for name, value in _with_defaults(self.target, self.arguments).items()}}


def _build(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.build()
    if isinstance(value, Mapping):
        return {key: _build(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return tuple(_build(item) for item in value)
    return value


class Validator:
    """Checks values against annotations and collects every problem.

    Args:
        phase: which player's terms are being read; selects the class of an adversarial pair.
        trust_code: whether ``type`` may be an import path.
    """

    def __init__(self, phase: Phase | None = None, trust_code: bool = True) -> None:
        self.phase = phase
        self.trust_code = trust_code
        self.problems: list[Problem] = []

    def report(self, place: str, message: str) -> None:
        """Notes one problem."""
        self.problems.append(Problem(place, message))

    def part(self, value: Any, base: type[Part], place: str) -> Any:
        """A ``{type: ..., options}`` mapping of kind ``base`` -> Spec; None if anything is wrong with it."""
        if isinstance(value, base):
            return value
        if not isinstance(value, Mapping):
            return self.report(place, f"{shown(value)}: expected {a(base.kind)}, a mapping with 'type'")
        target = self.type_of(value, base, place)
        if target is None:
            return None
        options = {key: item for key, item in value.items() if key != "type"}
        return self.call(target, options, place, is_part=True)

    def type_of(self, value: Mapping[str, Any], base: type[Part], place: str) -> Any:
        """The class or function that ``value['type']`` names, or None."""
        name = value.get("type")
        if not isinstance(name, str):
            near = [key for key in value if suggest(key, ["type"]).startswith("; did")]
            hint = f"; did you mean 'type' instead of {near[0]!r}?" if near else ""
            return self.report(
                place, f"{a(base.kind)} needs 'type'" + (f", got {shown(name)}" if name is not None else hint)
            )
        untrusted = refusal(name, self.trust_code)
        if untrusted is not None:
            return self.report(f"{place}.type", untrusted)
        try:
            return resolve(name, base, self.phase)
        except UserError as error:
            return self.report(f"{place}.type", str(error))

    def call(
        self,
        target: Callable[..., Any],
        options: Mapping[str, Any],
        place: str,
        *,
        is_part: bool = False,
        also: Sequence[str] = (),
    ) -> Any:
        """Options of a class or function -> Spec; None if anything is wrong with them.

        Args:
            target: what will be called.
            options: its arguments.
            place: where they stand.
            is_part: whether ``target`` was named by ``type``.
            also: names that may stand beside the options, for suggestions.
        """
        before = len(self.problems)
        parameters = option_parameters(target)
        hints = type_hints(target)
        arguments: dict[str, Any] = {}
        for key, item in options.items():
            here = _join(place, key)
            if key not in parameters:
                self.report(here, f"unknown option {shown(key)} of {_name(target)}{suggest(key, [*parameters, *also])}")
            else:
                arguments[key] = self.value(item, hints.get(key, Any), here)
        missing = [
            name for name, p in parameters.items() if p.default is inspect.Parameter.empty and name not in options
        ]
        for name in missing:
            self.report(_join(place, name), f"missing option {name!r} of {_name(target)}")
        return Spec(target, arguments, place, is_part) if len(self.problems) == before else None

    def value(self, value: Any, annotation: Any, place: str) -> Any:
        """Any value against any annotation; returns it with specs in place of mappings that describe objects."""
        bare = _strip(annotation)
        origin = get_origin(bare)
        if bare is Any or bare is inspect.Parameter.empty or isinstance(bare, TypeVar):
            self.problems += [Problem(where, message) for where, message in number_problems(value, place)]
            return value
        if origin in {Union, types.UnionType}:
            return self._union(value, annotation, get_args(bare), place)
        if origin is Literal:
            return self._literal(value, get_args(bare), place)
        if inspect.isclass(bare) and issubclass(bare, Part):
            return self.part(value, bare, place)
        if inspect.isclass(origin) and issubclass(origin, Mapping):
            return self._mapping(value, get_args(bare), place)
        if inspect.isclass(origin) and issubclass(origin, Sequence):
            return self._sequence(value, bare, place)
        if bare is Path:
            return (
                Path(value)
                if isinstance(value, (str, Path))
                else self.report(place, f"{shown(value)}: expected a path")
            )
        if dataclasses.is_dataclass(bare) and isinstance(bare, type) and not isinstance(value, bare):
            if not isinstance(value, Mapping):
                return self.report(place, f"{shown(value)}: expected a mapping of {', '.join(option_parameters(bare))}")
            return self.call(bare, value, place)
        return self._scalar(value, annotation, place)

    def _union(self, value: Any, annotation: Any, members: tuple[Any, ...], place: str) -> Any:
        if value is None and type(None) in members:
            return None
        members = tuple(member for member in members if member is not type(None))
        if len(members) == 1:
            metadata = get_args(annotation)[1:] if get_origin(annotation) is typing.Annotated else ()
            member = typing.Annotated[(members[0], *metadata)] if metadata else members[0]
            return self.value(value, member, place)
        attempts = []
        for member in members:
            attempt = Validator(self.phase, self.trust_code)
            result = attempt.value(value, member, place)
            if not attempt.problems:
                return result
            attempts.append(attempt.problems)
        fitting = [problems for problems in attempts if problems[0].place != place]
        fitting += [problems for member, problems in zip(members, attempts, strict=True) if _is_of(value, member)]
        self.problems += (
            fitting[0] if fitting else [Problem(place, f"{shown(value)}: expected {_describe(annotation)}")]
        )
        return None

    def _literal(self, value: Any, choices: tuple[Any, ...], place: str) -> Any:
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return value
        hint = suggest(value, [c for c in choices if isinstance(c, str)]) if isinstance(value, str) else ""
        hint = hint if hint.startswith("; did") else ""
        return self.report(place, f"{shown(value)}: expected {_one_of(choices)}{hint}")

    def _mapping(self, value: Any, members: tuple[Any, ...], place: str) -> Any:
        if not isinstance(value, Mapping):
            return self.report(place, f"{shown(value)}: expected a mapping")
        item = members[1] if len(members) == 2 else Any
        check = name_problem if _describes_parts(item) else key_problem
        for key in value:
            if (message := check(str(key))) is not None:
                self.report(place, message)
        return {str(key): self.value(element, item, _join(place, str(key))) for key, element in value.items()}

    def _sequence(self, value: Any, annotation: Any, place: str) -> Any:
        if isinstance(value, str) or not isinstance(value, Sequence):
            return self.report(place, f"{shown(value)}: expected a list")
        members = get_args(annotation)
        if get_origin(annotation) is tuple and members[-1] is not Ellipsis:
            if len(value) != len(members):
                return self.report(place, f"{shown(value)}: expected {len(members)} values")
        else:
            if members[0] is str:
                for twice in repeated(item for item in value if isinstance(item, str)):
                    self.report(place, f"{shown(twice)} stands twice")
            members = (members[0],) * len(value)
        return tuple(
            self.value(e, m, _join(place, str(i))) for i, (e, m) in enumerate(zip(value, members, strict=True))
        )

    def _scalar(self, value: Any, annotation: Any, place: str) -> Any:
        try:
            adapter = TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))
        except PydanticSchemaGenerationError:
            bare = _strip(annotation)
            if inspect.isclass(bare) and isinstance(value, bare):
                return value
            return self.report(place, f"a {_describe(annotation)} cannot be written in a recipe")
        if isinstance(value, int) and (message := number_problem(value)) is not None:
            return self.report(place, message)
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            text = error.errors()[0]["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
            return self.report(place, f"{shown(value)}: expected {text}")


def build(value: Mapping[str, Any], base: type[_P], *, phase: Phase | None = None, trust_code: bool = True) -> _P:
    """Builds the part of kind ``base`` that a ``{type: ..., options}`` mapping describes.

    Raises:
        ConfigError: listing every problem, each with its place.
    """
    validator = Validator(phase, trust_code)
    spec = validator.value(value, base, "")
    if validator.problems:
        raise ConfigError(validator.problems)
    made: _P = _build(spec)
    return made


def config_of(made: Any) -> dict[str, Any]:
    """The mapping that ``build`` rebuilds this part from, defaults filled in.

    Raises:
        TypeError: if it was not built by smalti and is no Part.
    """
    if isinstance(made, Part):
        arguments = _with_defaults(type(made), arguments_of(made))
        return {"type": short_name(type(made)), **{name: plain(value) for name, value in arguments.items()}}
    try:
        return _built[made].plain()
    except (KeyError, TypeError):
        raise TypeError(f"{type(made).__name__} was not built from a recipe, so its options are not known") from None


def plain(value: Any) -> Any:
    """A value as YAML and JSON can hold it: parts and specs become mappings, tuples lists, paths strings."""
    if isinstance(value, Spec):
        return value.plain()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type) and not isinstance(value, Part):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return config_of(value)


def option_parameters(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The options of a class (its constructor's arguments) or function (its keyword-only arguments)."""
    parameters = inspect.signature(target).parameters
    keyword, either = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD
    kinds = {keyword, either} if inspect.isclass(target) else {keyword}
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds}


def type_hints(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of those arguments, strings resolved, ``Annotated`` kept."""
    function = target.__init__ if inspect.isclass(target) else target
    return typing.get_type_hints(function, include_extras=True)


def _with_defaults(target: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    result = {}
    for name, parameter in option_parameters(target).items():
        if name in arguments:
            result[name] = arguments[name]
        elif parameter.default is not inspect.Parameter.empty:
            result[name] = _default(target, name, parameter.default)
    return result


def _default(target: Callable[..., Any], name: str, default: Any) -> Any:
    if dataclasses.is_dataclass(target):  # a default_factory shows as a marker object in the signature
        field = next(f for f in dataclasses.fields(target) if f.name == name)
        if field.default_factory is not dataclasses.MISSING:
            return field.default_factory()
    return default


def _describes_parts(annotation: Any) -> bool:
    """Whether values of it are parts or options of such, so that their keys are names that a user gave."""
    bare = _strip(annotation)
    return inspect.isclass(bare) and (issubclass(bare, Part) or dataclasses.is_dataclass(bare))


def _strip(annotation: Any) -> Any:
    return get_args(annotation)[0] if get_origin(annotation) is typing.Annotated else annotation


def _join(place: str, key: str) -> str:
    return f"{place}.{key}" if place else key


def _name(target: Any) -> str:
    return getattr(target, "__qualname__", repr(target))


def _one_of(choices: Sequence[Any]) -> str:
    words = [repr(choice) for choice in choices]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _is_of(value: Any, member: Any) -> bool:
    """Whether a number is of the type that a member of a union has, and only out of its bounds."""
    bare = get_args(member)[0] if get_origin(member) is typing.Annotated else member
    return bare in {int, float} and isinstance(value, bare) and not isinstance(value, bool)


def _describe(annotation: Any) -> str:
    bare = _strip(annotation)
    if get_origin(bare) in {Union, types.UnionType}:
        return " or ".join(_describe(member) for member in get_args(bare))
    if get_origin(bare) is Literal:
        return _one_of(get_args(bare))
    if bare is type(None):
        return "null"
    return str(getattr(bare, "kind", None) or getattr(bare, "__name__", bare))
