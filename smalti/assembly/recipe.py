"""A recipe: where it is found, and everything that can be known of it before data or weights.

``load_recipe`` reads a shipped name (``quickstart``, ``tiny-vqvae``) or a YAML file and validates it whole: one error
lists every problem with its place. ``Recipe.plain`` is the resolved form, defaults filled in, that a run folder stores.

>>> from smalti.assembly.recipe import load_recipe
>>> recipe = load_recipe("tiny-vqvae", ["engine.max_steps=5"])
>>> recipe.plain()["engine"]["max_steps"]
5
"""

import difflib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from smalti.assembly.checks import graph_problems
from smalti.assembly.fine_tuning import start_problems
from smalti.assembly.sections import TINY, Recipe, read_sections
from smalti.config import ConfigError, Document, Problem, Validator, load, override
from smalti.config.document import merge, parse
from smalti.config.places import local
from smalti.registry import UserError
from smalti.tokens.description import STORE

TOKENS = "tokens"
__all__ = ["Recipe", "load_recipe", "read_document", "shipped", "validate"]


def shipped() -> tuple[str, ...]:
    """Names of the recipes that come with smalti; each also has a ``tiny-`` form."""
    folder = resources.files("smalti.recipes")
    return tuple(sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml")))


def read_document(name: str | Path, overrides: Sequence[str] = (), data: str | Path | None = None) -> Document:
    """A recipe as written, its ``tiny`` block and the overrides applied, not validated.

    Args:
        name: a shipped name, ``tiny-`` before one, or a path to a YAML file.
        overrides: ``section.key=value`` each.
        data: folder of images, or token store, that replaces the data source; overrides may add to it
            (``data.source.table``). Held-out tokens of the store that is replaced come from the new one.
    """
    text = str(local(name))
    is_path = text.endswith((".yaml", ".yml")) or Path(text).is_file()
    small = not is_path and text.startswith(f"{TINY}-")
    document = load(text) if is_path else _shipped_document(text.removeprefix(f"{TINY}-") if small else text, text)
    block = document.data.get(TINY)
    if small and not block:
        raise UserError(f"recipe {text.removeprefix(f'{TINY}-')!r} has no {TINY} block")
    if isinstance(block, Mapping) and small:
        document.data = merge(document.data, block)
        document.marks |= {
            place[len(TINY) + 1 :]: mark for place, mark in document.marks.items() if place.startswith(TINY)
        }
    if small:
        del document.data[TINY]
    folder = None if data is None else _source_of(data)
    own = _own_source(document)
    reads_store = folder is not None and folder["type"] == own.get("type") == TOKENS
    _replace_source(document, folder, own if reads_store else {})
    if reads_store and folder is not None:
        _replace_held_out(document, folder, own)
    for assignment in overrides:
        override(document, assignment)
    _replace_source(document, folder, _own_source(document))
    return document


def _source_of(data: str | Path) -> dict[str, str]:
    """The source of what ``--data`` names: a token store, or a folder of images."""
    return {"type": TOKENS if (Path(data) / STORE).is_file() else "image_folder", "path": str(data)}


def _own_source(document: Document) -> dict[str, object]:
    section = document.data.get("data")
    source = section.get("source") if isinstance(section, dict) else None
    return dict(source) if isinstance(source, dict) else {}


def _replace_held_out(document: Document, folder: Mapping[str, str], own: Mapping[str, object]) -> None:
    """Puts the new store where the validation reads the one that is replaced."""
    section = document.data.get("validation")
    data = section.get("data") if isinstance(section, dict) else None
    source = data.get("source") if isinstance(data, dict) else None
    if isinstance(source, dict) and (source.get("type"), source.get("path")) == (TOKENS, own.get("path")):
        source["path"] = folder["path"]


def _replace_source(document: Document, folder: Mapping[str, str] | None, beside: Mapping[str, object]) -> None:
    """Puts a folder of images in the place of the data source, options such as its table ``beside`` it."""
    if folder is not None and isinstance(document.data.get("data"), dict):
        document.data["data"]["source"] = {**beside, **folder}
        document.marks["data.source"] = "(--data)"


def _shipped_document(name: str, asked: str) -> Document:
    if name not in shipped():
        known = [*shipped(), *(f"{TINY}-{one}" for one in shipped())]
        near = difflib.get_close_matches(asked, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; shipped recipes: {', '.join(shipped())}"
        raise UserError(f"no recipe {asked!r}: expected a shipped name or a path that ends in .yaml{hint}")
    return parse((resources.files("smalti.recipes") / f"{name}.yaml").read_text(encoding="utf-8"), f"{name}.yaml")


def load_recipe(
    name: str | Path, overrides: Sequence[str] = (), data: str | Path | None = None, *, trust_code: bool = False
) -> Recipe:
    """Reads and validates a recipe; arguments as for ``read_document``.

    The modules that the recipe names by import path are imported: it is the user's own, as a script would be.

    Args:
        name: a shipped name, ``tiny-`` before one, or a path to a YAML file.
        overrides: ``section.key=value`` each.
        data: folder of images that replaces the data source.
        trust_code: whether saved networks that the recipe starts from (``init``) may name classes outside smalti, too.

    Raises:
        ConfigError: listing every problem, each with its place, file and line.
    """
    return validate(read_document(name, overrides, data), Path(name).stem, trust_code=trust_code)


def validate(document: Document, name: str = "recipe", *, trust_code: bool = False) -> Recipe:
    """A document -> a validated recipe.

    Raises:
        ConfigError: listing every problem, each with its place.
    """
    validator = Validator()
    recipe = read_sections(document, name, validator, trust_code=trust_code)
    problems = [*document.problems, *validator.problems]
    broken = {problem.place for problem in problems}
    found = [*graph_problems(recipe), *start_problems(recipe.starts, recipe.specs)]
    problems += [problem for problem in found if problem.place not in broken]
    if problems:
        raise ConfigError([Problem(p.place, p.message, p.where or document.where(p.place)) for p in problems])
    return recipe
