"""Models of tokens in a recipe: what is known of them before a store is read, and whether it is theirs once it is."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from smalti.assembly.sections import Recipe
from smalti.config import Problem, Spec
from smalti.metrics._predicted import unfit
from smalti.outputs import predicts_tokens
from smalti.registry import UserError

MOST_VALUES = 2**25


def token_problems(recipe: Recipe, model: Any) -> Iterator[Problem]:
    """Metrics of the validation that are not of such a model.

    Args:
        recipe: whose sections were read.
        model: of the recipe without memory, or None.
    """
    section = recipe.specs.get("validation")
    target = recipe.model_class if model is None else model
    if not isinstance(section, Spec) or target is None:
        return
    for name, metric in (section.arguments.get("metrics") or {}).items():
        said = unfit(metric.target, target) if isinstance(metric, Spec) else None
        if said is not None:
            yield Problem(f"validation.metrics.{name}", f"it {said}")


def known_tokens(model: Any) -> Mapping[str, Any]:
    """Context name -> value of zeros, for what is known of a batch of one of a model of tokens.

    Nothing of logits that would take much time or memory.
    """
    codebooks, grid = getattr(model, "codebooks", None), getattr(model, "grid", None)
    if not predicts_tokens(model) or not codebooks or grid is None:
        return {}
    if grid[0] * grid[1] * sum(codebooks.values()) > MOST_VALUES:
        return {}
    logits = {name: torch.zeros(()).expand(1, *grid, size) for name, size in codebooks.items()}
    indices = torch.zeros((), dtype=torch.int64).expand(1, len(codebooks), *grid)
    values: dict[str, Any] = {"logits": logits, "indices": indices, "batch.indices": indices}
    values["batch.label"] = torch.zeros(1, dtype=torch.int64)
    return values | {f"logits.{name}": scores for name, scores in logits.items()}


def require_same_tokens(model: Any, source: Any, place: str) -> None:
    """Refuses a source whose tokens are not those that a model predicts.

    Args:
        model: any.
        source: a source that was read; one that says nothing of its codebooks is taken as it is.
        place: of the source in the recipe.

    Raises:
        UserError: with the codebooks and grids of both.
    """
    theirs = getattr(source, "codebooks", None)
    if not predicts_tokens(model) or not isinstance(theirs, Mapping):
        return
    if not theirs:
        raise UserError(f"{place}: the latents of a continuous bottleneck: this model predicts tokens of codebooks")
    grid = getattr(source, "grid", None)
    if grid is None:
        raise UserError(f"{place}: images of several sizes: expected one grid; `smalti tokenize --size` makes them one")
    ours = (list(model.codebooks.items()), tuple(model.grid))
    if ours != (list(theirs.items()), tuple(grid)):
        predicted = _words(model.codebooks, model.grid)
        raise UserError(
            f"{place}: its tokens are {_words(theirs, grid)}; the model predicts {predicted}: "
            f"set model.codebooks={_mapping(theirs)} model.grid={list(grid)}"
        )


def require_same_tokenizer(first: Any, second: Any, place: str) -> None:
    """Refuses held-out tokens of another tokenizer than that of the training data.

    Raises:
        UserError: with the paths of both.
    """
    one, two = (getattr(source, "tokenizer", None) for source in (first, second))
    if one is not None and two is not None and one.hash != two.hash:
        raise UserError(
            f"{place}: its tokens are of another tokenizer ({two.path}, weights {two.hash[:16]}) than those of "
            f"data.source ({one.path}, weights {one.hash[:16]})"
        )


def _words(codebooks: Mapping[str, int], grid: Any) -> str:
    listed = ", ".join(f"{name} of {size:,} codes" for name, size in codebooks.items())
    return f"{listed} on {grid[0]} x {grid[1]} places"


def _mapping(codebooks: Mapping[str, int]) -> str:
    return "{" + ", ".join(f"{name}: {size}" for name, size in codebooks.items()) + "}"
