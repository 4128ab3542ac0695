"""Options that several verbs have, with bounds that any number keeps to."""

import math
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smalti.registry import UserError

if TYPE_CHECKING:
    import torch

LARGEST_COUNT = 2**31 - 1
LARGEST_SEED = 2**63 - 1
LARGEST_SIDE = 65_535  # pixels, of image files of most formats


def whole_number(
    text: str, *, least: int = 1, most: int | None = None, limit: int = LARGEST_COUNT, **options: Any
) -> Any:
    """A whole number.

    Args:
        text: help.
        least: smallest value that is allowed.
        most: largest value that is allowed, if the help should name it.
        limit: what no value may exceed for technical reasons; the help does not name it.
        options: others of ``typer.Option``.
    """
    return typer.Option(min=least, max=most, metavar="N", help=text, callback=_at_most(limit), **options)


def _at_most(limit: int) -> Callable[[int | None], int | None]:
    def check(value: int | None) -> int | None:
        if value is not None and value > limit:
            raise typer.BadParameter(f"{value} is not in the range x<={limit}.")
        return value

    return check


def recipe_names(incomplete: str) -> list[str]:
    """What the shell offers for a recipe: shipped names, their tiny forms once `tiny` is begun, YAML files here."""
    from importlib import resources
    from pathlib import Path

    found = resources.files("smalti.recipes").iterdir()
    names = [entry.name.removesuffix(".yaml") for entry in found if entry.name.endswith(".yaml")]
    forms = [f"tiny-{name}" for name in names] if incomplete.startswith("t") else []
    files = [path.name for path in Path().glob("*.y*ml")]
    return sorted(name for name in (*names, *forms, *files) if name.startswith(incomplete))


RecipeName = typer.Argument(
    metavar="RECIPE",
    help="Name of a shipped recipe, tiny-NAME for its small form, or a YAML file.",
    show_default=False,
    autocompletion=recipe_names,
)

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a value of the recipe, such as engine.max_steps=100; null removes a term. Repeatable.",
    ),
]


def finite(value: float | None) -> float | None:
    """A number as it is: ``nan`` and ``inf`` compare with every bound as if they kept to it.

    Raises:
        typer.BadParameter: for a value that is not finite.
    """
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter(f"{value}: expected a finite number")
    return value


Size = Annotated[
    int | None,
    whole_number("Resize and centre-crop images to N x N pixels.", limit=LARGEST_SIDE, show_default="keep their size"),
]
BatchSize = Annotated[int, whole_number("Images per batch.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:1, ...; auto uses a GPU if there is one.")]


def device_of(name: str) -> "torch.device":
    """The device of an option.

    Raises:
        UserError: if there is no such device, or nothing can be computed on it.
    """
    import torch

    kinds = ["cpu", *(kind for kind in ("cuda", "mps", "xpu") if getattr(torch, kind).is_available())]
    if name == "auto":
        return torch.device(kinds[-1] if kinds[-1] == "cuda" else "cpu")
    kind, _, index = name.partition(":")
    if kind not in kinds or (index and not (index.isascii() and index.isdigit() and len(index) < 5)):
        raise UserError(f"--device {name}: no such device; expected auto, {', '.join(kinds)}")
    if kind == "cpu":
        return torch.device("cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return torch.device(name)


def check_room(needed: int, what: str, lower: str) -> None:
    """Refuses what this machine has no memory for.

    Args:
        needed: bytes at the least.
        what: they are for.
        lower: the options to lower.

    Raises:
        UserError: with both figures.
    """
    there = _memory()
    if there is not None and needed > there:
        figures = f"{needed / 2**30:,.0f} GiB, and this machine has {there / 2**30:,.0f}"
        raise UserError(f"{what} would take {figures}: lower {lower}")


def _memory() -> int | None:
    """Bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
