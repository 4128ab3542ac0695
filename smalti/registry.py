"""Parts and how they are found: a kind's base class + a short name -> the class.

A *part* is anything a recipe can name with ``type:``: a loss, a bottleneck, a metric. Every kind has one abstract base
class, which knows the package its parts live in. The short name of a part is the stem of its file, so a new file in
that package is a new part: there is no table to extend and no decorator that must have been imported before. A class
from elsewhere is named by its import path, ``my_pkg.my_module.MyClass``.
"""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, Self

Phase = Literal["generator", "discriminator"]


class UserError(ValueError):
    """Something the user can mend: a recipe, a path, a file. Shown without a traceback, exit code 2."""


class Part:
    """Base of everything a recipe can build; it remembers the arguments it was constructed with.

    The base class of a kind sets ``kind`` (the word used in messages) and ``package`` (where its files are). A part
    that exists once for each player of a game (an adversarial loss) sets ``phase``.
    """

    kind: ClassVar[str] = "part"
    package: ClassVar[str] = ""
    phase: ClassVar[Phase | None] = None
    _arguments: Mapping[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Creates the part and notes the arguments its constructor is about to get."""
        part = super().__new__(cls)
        bound = inspect.signature(cls.__init__).bind_partial(part, *args, **kwargs).arguments
        bound.pop("self", None)
        # object.__setattr__: an nn.Module would register module arguments a second time, under a name of ours.
        object.__setattr__(part, "_arguments", dict(bound))
        return part


def arguments_of(part: Part) -> dict[str, Any]:
    """The constructor arguments that ``part`` was built with, defaults left out."""
    return dict(part._arguments)


def names(base: type[Part]) -> tuple[str, ...]:
    """Short names of the registered parts of a kind, sorted; files that start with an underscore are no parts."""
    package = importlib.import_module(base.package)
    stems = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(
        sorted(stem for stem in stems if not stem.startswith("_") and _classes(f"{base.package}.{stem}", base))
    )


def classes(base: type[Part]) -> dict[str, list[type[Part]]]:
    """Short name -> the registered classes of that name: one, or one for each player of an adversarial pair."""
    return {name: _classes(f"{base.package}.{name}", base) for name in names(base)}


def resolve(name: str, base: type[Part], phase: Phase | None = None) -> Any:
    """The class (or, for an import path, also the function) that ``name`` means for the kind ``base``.

    Args:
        name: a short name, or an import path with at least one dot.
        base: the kind's base class.
        phase: which player asks; selects between the two classes of an adversarial pair.

    Raises:
        UserError: if nothing of that name exists, with the nearest name that does.
    """
    if "." in name:
        return _import_path(name, base)
    if name not in names(base):
        raise UserError(f"unknown {base.kind} {name!r}{suggest(name, names(base))}")
    candidates = _classes(f"{base.package}.{name}", base)
    fitting = [value for value in candidates if phase is None or value.phase in {None, phase}]
    if not fitting:
        raise UserError(f"{base.kind} {name!r} is for the {candidates[0].phase} phase, not for the {phase} phase")
    if len(fitting) > 1:
        options = " or ".join(f"{value.__module__}.{value.__qualname__}" for value in fitting)
        raise UserError(f"{base.kind} {name!r} means two classes outside a phase: write {options}")
    return fitting[0]


def _classes(module_name: str, base: type[Part]) -> list[type[Part]]:
    module = importlib.import_module(module_name)
    values = (value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, base))
    return [value for value in values if value.__module__ == module_name and not value.__name__.startswith("_")]


def short_name(cls: Any) -> str:
    """What a recipe writes after ``type:`` for this class: its file's stem if registered, else its import path."""
    package = getattr(cls, "package", "")
    if package and cls.__module__.startswith(f"{package}."):
        stem: str = cls.__module__.rpartition(".")[2]
        return stem
    return f"{cls.__module__}.{cls.__qualname__}"


def _import_path(path: str, base: type[Part]) -> Any:
    module_name, _, attribute = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"cannot import {path!r}: {error}") from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UserError(f"cannot import {path!r}: no {attribute!r} in {module_name!r}{suggest(attribute, public)}")
    target = getattr(module, attribute)
    if not callable(target):
        raise UserError(f"{path!r} is a {type(target).__name__}, expected {a(base.kind)} class or function")
    return target


def a(noun: str) -> str:
    """The noun with its article.

    >>> a("encoder"), a("loss")
    ('an encoder', 'a loss')
    """
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def suggest(word: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the nearest known word, else ``"; known: ..."`` with the first dozen."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    more = f", ... ({len(known)} in all)" if len(known) > 12 else ""
    return f"; known: {', '.join(known[:12])}{more}" if known else ""
