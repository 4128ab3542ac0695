"""Parts and how they are found: a kind's base class + a short name -> the class.

A *part* is anything a recipe can name with ``type:``: a loss, a bottleneck, a metric. Every kind has one abstract base
class, which knows the package its parts live in. The short name of a part is the stem of its file, so a new file in
that package is a new part: there is no table to extend and no decorator that must have been imported before. A class
from elsewhere is named by its import path, ``my_pkg.my_module.MyClass``:
it must fit the kind before it is ever called, and what can fit none is not even imported.
"""

import difflib
import importlib
import importlib.util
import inspect
import keyword
import pkgutil
import sys
import sysconfig
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

Phase = Literal["generator", "discriminator"]
LONGEST_PATH = 255


class UserError(ValueError):
    """Something the user can mend: a recipe, a path, a file. Shown without a traceback, exit code 2."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows of it: the message, as the command line does."""
        return [f"{type(self).__name__}: {self}"]


class Part:
    """Base of everything a recipe can build; it remembers the arguments it was constructed with.

    The base class of a kind sets ``kind`` (the word used in messages) and ``package`` (where its files are). A part
    that exists once for each player of a game (an adversarial loss) sets ``phase``. ``stand_ins`` are classes and
    protocols of which a class from elsewhere may be one instead of the kind's own; ``functions`` says whether a plain
    function may stand for the kind, too. ``former`` tells what became of names that were given up.
    """

    kind: ClassVar[str] = "part"
    package: ClassVar[str] = ""
    phase: ClassVar[Phase | None] = None
    stand_ins: ClassVar[tuple[type, ...]] = ()
    functions: ClassVar[bool] = False
    former: ClassVar[Mapping[str, str]] = {}
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
        became = base.former.get(name)
        hint = f": it became {became}" if became else suggest(name[:LONGEST_PATH], names(base))
        raise UserError(f"unknown {base.kind} {shown(name)}{hint}")
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


def _import_path(path: str, base: type[Part]) -> Any:
    """The class or function of an import path, which is imported unless it is known to fit no kind."""
    module_name, _, attribute = path.rpartition(".")
    _check_path(path)
    if is_standard(module_name):
        raise UserError(f"{path!r} belongs to Python's standard library, {_expected(base)}")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f"cannot import {path!r}: {error}") from error
    except (Exception, SystemExit) as error:  # the user's own module may fail in any way
        raise UserError(f"cannot import {path!r}: {module_name} raises {type(error).__name__}: {error}") from error
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UserError(f"cannot import {path!r}: no {attribute!r} in {module_name!r}{suggest(attribute, public)}")
    target = getattr(module, attribute)
    why = _misfit(target, base)
    if why is not None:
        raise UserError(f"{path!r} {why}, {_expected(base)}")
    return target


def _check_path(path: str) -> None:
    parts = path.split(".")
    words = all(part.isidentifier() and not keyword.iskeyword(part) for part in parts)
    script = parts[0] == "__main__"  # a class of the script that is running; pkg.__main__ would run pkg
    if not words or len(path) > LONGEST_PATH or "__main__" in parts[script:]:
        raise UserError(f"{shown(path)}: expected an import path, such as my_package.my_module.MyClass")


def _misfit(target: Any, base: type[Part]) -> str | None:
    """Why a class or function cannot stand for the kind ``base``, None if it can; it is looked at, never called."""
    if inspect.isclass(target):
        return _class_misfit(target, base)
    if not callable(target) or inspect.ismodule(target):
        return f"is {a(type(target).__name__)}"
    if not isinstance(target, types.FunctionType):
        return f"is {a(type(target).__name__)}, no plain function or class"
    if not base.functions:
        return "is a function"
    if is_standard(target.__module__):
        return f"is {target.__module__}.{target.__qualname__} of Python's standard library"
    if inspect.iscoroutinefunction(target) or inspect.isgeneratorfunction(target):
        return "is a function that returns no value at once"
    if _is_installed(target.__module__) and not _returns_tensor(target):
        return "is a library's function that does not say it returns a tensor (-> Tensor)"
    return None


def _class_misfit(target: type, base: type[Part]) -> str | None:
    if is_standard(target.__module__):
        return f"is {target.__module__}.{target.__qualname__} of Python's standard library"
    if target is base or target in base.stand_ins:
        return "is the base of many, and none itself"
    if issubclass(target, Part):
        lacking = [name for name in dir(target) if _is_abstract(inspect.getattr_static(target, name))]
        if target.kind != base.kind:
            return f"is {a(target.kind)}"
        if lacking:
            return f"has no {', '.join(lacking)} of its own"
        if issubclass(target, base):
            return None
    for stand_in in base.stand_ins:
        # A library's class that only happens to have the methods (numpy.memmap, with a length and items) is none.
        if issubclass(target, stand_in) and not (_is_protocol(stand_in) and _is_installed(target.__module__)):
            return None
    return "is a class of another kind"


def _is_abstract(member: object) -> bool:
    return getattr(member, "__isabstractmethod__", False) is True


def _is_protocol(cls: type) -> bool:
    return getattr(cls, "_is_protocol", False) is True


def _expected(base: type[Part]) -> str:
    """What an import path must name, for messages."""
    nominal = [_public_name(cls) for cls in (base, *base.stand_ins) if not _is_protocol(cls)]
    ways = [f"derived from {' or '.join(nominal)}"]
    for protocol in filter(_is_protocol, base.stand_ins):
        methods = [name for name, value in vars(protocol).items() if inspect.isfunction(value)]
        ways.append(f"with {' and '.join(name for name in methods if name not in {'__init__', '__subclasshook__'})}")
    function = " or a plain function of tensors" if base.functions else ""
    return f"expected {a(base.kind)} class ({' or '.join(ways)}){function}"


def _origin(module_name: str) -> Path | None:
    """Where the outermost package of a module lies, found without importing it; None if it is in no file."""
    root = module_name.partition(".")[0]
    try:
        spec = importlib.util.find_spec(root)
    except (ImportError, ValueError):
        return None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    found = next((place for place in places if place), None)
    return None if found is None else Path(found)


def is_standard(module_name: str) -> bool:
    """Whether a module comes with Python: no part does, and importing some of them (``this``) does something."""
    root = module_name.partition(".")[0]
    if root in sys.stdlib_module_names or root in sys.builtin_module_names:
        return True
    origin = None if root == "__main__" else _origin(module_name)
    if origin is None:
        return False
    home = Path(sysconfig.get_path("stdlib"))  # the names above leave out Python's own tests
    return str(origin) == "frozen" or (origin.is_relative_to(home) and not _is_site(origin))


def _is_installed(module_name: str) -> bool:
    """Whether a module belongs to an installed library; code that is being worked on does not."""
    root = module_name.partition(".")[0]
    origin = None if root == "__main__" else _origin(module_name)
    return root == __name__.partition(".")[0] or (origin is not None and _is_site(origin))


def _is_site(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _returns_tensor(function: types.FunctionType) -> bool:
    said = function.__annotations__.get("return")
    if not isinstance(said, str):
        members = typing.get_args(said) or (said,)
        said = " ".join(getattr(member, "__name__", "") for member in members)
    return any(word in said for word in ("Tensor", "LossValue"))


def _public_name(cls: type) -> str:
    """The shortest path by which a class can be imported: torch.nn.Module, not torch.nn.modules.module.Module."""
    parts = cls.__module__.split(".")
    for count in range(1, len(parts) + 1):
        module = ".".join(parts[:count])
        if getattr(sys.modules.get(module), cls.__name__, None) is cls:
            return f"{module}.{cls.__name__}"
    return cls.__qualname__


def short_name(cls: Any) -> str:
    """What a recipe writes after ``type:`` for this class: its file's stem if registered, else its import path."""
    package = getattr(cls, "package", "")
    if package and cls.__module__.startswith(f"{package}."):
        stem: str = cls.__module__.rpartition(".")[2]
        return stem
    return f"{cls.__module__}.{cls.__qualname__}"


def shown(value: object, most: int = 120) -> str:
    """A value as a message shows it: the beginning of a long one.

    >>> shown("a" * 1000, most=9)
    "'aaaaa..."
    """
    try:
        text = repr(value)
    except ValueError:  # a number of more digits than Python prints
        return f"a {type(value).__name__} of many digits"
    return text if len(text) <= most else f"{text[: most - 3]}..."


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
