"""What no run can have: sizes that could not be allocated, and terms that measure a thing against itself."""

from collections.abc import Iterator
from math import prod
from typing import Any

from smalti.assembly.sections import Recipe
from smalti.config import Problem, Spec
from smalti.nn.budget import readable
from smalti.objectives.names import PREDICTION, TARGET
from smalti.objectives.term import Term
from smalti.registry import UserError

MOST_BATCH_BYTES = 2**36  # 64 GiB of images alone; what networks make of them takes many times as much
MOST_WORKERS = 1024
MOST_ACCUMULATED = 100_000
_SCORES = "logits_"  # a penalty of scores may look at those of real images twice


def limit_problems(recipe: Recipe, model: Any) -> Iterator[Problem]:
    """Sizes and bindings with which no run makes sense.

    Args:
        recipe: whose sections were read.
        model: of the recipe, or None.
    """
    channels = getattr(model, "image_channels", 3)
    data, validation, engine = (recipe.specs.get(name) for name in ("data", "validation", "engine"))
    yield from _batch("data", data, channels)
    if isinstance(validation, Spec):
        yield from _batch("validation.data", validation.arguments.get("data"), channels)
    if isinstance(engine, Spec):
        yield from _engine(engine, data, channels)
    for terms in recipe.terms.values():
        for name, spec in terms.items():
            try:
                yield from _bound_twice(spec.static(name), spec.place)
            except (UserError, ValueError):
                continue  # its arguments cannot be read: that is said elsewhere


def _batch(place: str, section: Any, channels: int) -> Iterator[Problem]:
    if not isinstance(section, Spec):
        return
    count = section.arguments.get("batch_size", 16)
    held = image_bytes(section, channels)
    if count is not None and held * count > MOST_BATCH_BYTES:
        where = f"{place}.batch_size" if held <= MOST_BATCH_BYTES else f"{place}.transform.size"
        yield Problem(where, f"images of {readable(held * count)} in one batch: {_at_most(MOST_BATCH_BYTES)}")
    workers = section.arguments.get("workers", 0)
    if workers is not None and workers > MOST_WORKERS:
        yield Problem(f"{place}.workers", f"{workers}: expected at most {MOST_WORKERS:,} processes")


def _engine(engine: Spec, data: Any, channels: int) -> Iterator[Problem]:
    accumulate, samples = engine.arguments.get("accumulate", 1), engine.arguments.get("samples", 8)
    if accumulate is not None and accumulate > MOST_ACCUMULATED:
        yield Problem("engine.accumulate", f"{accumulate}: expected at most {MOST_ACCUMULATED:,} micro-batches")
    held = samples * image_bytes(data, channels) if samples is not None and isinstance(data, Spec) else 0
    if held > MOST_BATCH_BYTES:
        yield Problem("engine.samples", f"a picture of {readable(held)}: {_at_most(MOST_BATCH_BYTES)}")


def _at_most(size: int) -> str:
    return f"expected at most {readable(size)}"


def image_bytes(section: Spec, channels: int) -> int:
    """What one image of a data section takes as float32; that of one pixel where its size is not known."""
    transform = section.arguments.get("transform")
    size = transform.arguments.get("size") if isinstance(transform, Spec) else None
    sides = (size, size) if isinstance(size, int) else (size or (1, 1))
    return 4 * channels * prod(sides)


def _bound_twice(term: Term, place: str) -> Iterator[Problem]:
    """Two inputs that a loss must have and that are one value: a distance would be 0 for ever."""
    seen: dict[str, str] = {}
    for name, needed in term.arguments.items():
        if not needed or name.startswith(_SCORES):
            continue
        value = term.bindings[name]
        known = _one_name(value)
        if known in seen:
            first = term.bindings[seen[known]]
            same = repr(value) if value == first else f"{first!r} and {value!r}, which are one,"
            yield Problem(f"{place}.inputs", f"{seen[known]!r} and {name!r} are both bound to {same}")
        seen.setdefault(known, name)


def _one_name(value: str) -> str:
    """Context names of one value have one name."""
    for alike, name in ((PREDICTION, "prediction"), (TARGET | {"batch.image"}, "target")):
        if value in alike:
            return name
    return value
