"""Which columns of a batch a recipe asks for: training has them, and validation, which evaluates the same objective."""

from collections.abc import Collection, Iterator
from typing import Any

from smalti.assembly.sections import Recipe
from smalti.config import Problem, Spec
from smalti.data import ImageSource
from smalti.objectives.names import LABEL
from smalti.registry import UserError, names, resolve

ALWAYS = ("index", "position", "noise")  # what the loader and the engine add
ANY = "*"
COLUMN = "batch."
CONDITION = "condition"


def condition_of(discriminator: Any) -> str | None:
    """The batch column that a discriminator is given beside images: labels, condition images, or none."""
    if getattr(discriminator, "num_classes", 0):
        return LABEL
    return CONDITION if getattr(discriminator, "condition_channels", 0) else None


def given_columns(source: Any) -> tuple[str, ...]:
    """Columns of a source's description; ``*`` among them stands for some that only its files know."""
    columns_of = getattr(source.target, "columns_of", None) if isinstance(source, Spec) else None
    return (*columns_of(source.arguments), "index", "position") if columns_of else ("image", ANY)


def asked_columns(recipe: Recipe, model: Any, discriminator: Any) -> dict[str, str]:
    """Columns that terms and networks ask for, each with the place of the first that does."""
    found: dict[str, str] = dict.fromkeys(sorted(getattr(model, "reads", ())), "model")
    for terms in recipe.terms.values():
        for name, term in terms.items():
            try:
                reads = term.static(name).reads
            except (UserError, ValueError):  # that is said elsewhere
                continue
            for read in sorted(reads):
                if read.startswith(COLUMN):
                    found.setdefault(read.removeprefix(COLUMN).partition(".")[0], term.place)
    condition = condition_of(discriminator)
    if condition is not None:
        found.setdefault(condition, "discriminator")
    if getattr(model, "num_classes", 0):
        found.setdefault(LABEL, "model")
    return found


def training_problems(recipe: Recipe, model: Any) -> Iterator[Problem]:
    """Columns that the model reads and the data have not; of labels it is said elsewhere."""
    data = recipe.specs.get("data")
    if not isinstance(data, Spec):
        return
    given = given_columns(data.arguments.get("source"))
    for name in sorted(getattr(model, "reads", frozenset()) - {LABEL, *given}) if ANY not in given else ():
        known = (one for one in names(ImageSource) if name in resolve(one, ImageSource).columns_of({}))
        others = ", ".join(known)
        hint = f"; sources with it: {others}" if others else ""
        shown = ", ".join(column for column in given if column not in ALWAYS)
        yield Problem("data.source", f"no column {name!r}, which the model reads; it has {shown}{hint}")


def has_images(source: Any) -> bool:
    """Whether items of a source's description have images, as far as that is known."""
    channels = getattr(source.target, "image_channels", None) if isinstance(source, Spec) else None
    return channels != 0 and not {"image", ANY}.isdisjoint(given_columns(source))


def lacking(asked: dict[str, str], given: Collection[str]) -> list[str]:
    """A message for each column that is asked for and not given."""
    if ANY in given:
        return []
    return [f"no column {name!r}, which {place} asks for" for name, place in asked.items() if name not in given]


def held_out_problems(recipe: Recipe, model: Any, discriminator: Any) -> Iterator[Problem]:
    """Columns that training has and validation lacks: a run would end at its first validation."""
    section, data = recipe.specs.get("validation"), recipe.specs.get("data")
    inner = section.arguments.get("data") if isinstance(section, Spec) else None
    if not isinstance(inner, Spec) or not isinstance(data, Spec):
        return
    yield from _streamed_problems(inner.arguments.get("source"))
    trained = given_columns(data.arguments.get("source"))
    asked = asked_columns(recipe, model, discriminator)
    asked = {name: place for name, place in asked.items() if name in trained or ANY in trained}
    for message in lacking(asked, (*given_columns(inner.arguments.get("source")), *ALWAYS)):
        yield Problem("validation.data.source", message)


def _streamed_problems(source: Any) -> Iterator[Problem]:
    """A stream is read in its order once an epoch; what is held out is read by number."""
    is_streamed = getattr(source.target, "is_streamed", None) if isinstance(source, Spec) else None
    if is_streamed is not None and is_streamed(source.arguments):
        yield Problem("validation.data.source", "a stream is for training only: streaming: false")


def require_columns(asked: dict[str, str], source: Any, place: str) -> None:
    """Refuses a source that has been read and lacks a column.

    Raises:
        UserError: naming the column and who asks for it.
    """
    missing = lacking(asked, (*getattr(source, "columns", (ANY,)), *ALWAYS))
    if missing:
        raise UserError(f"{place}: {missing[0]}; it has {', '.join(source.columns)}")
