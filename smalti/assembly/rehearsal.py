"""A rehearsal of terms on images without content, before there is data.

What a loss says of the sizes it is given - images too small for its scales, a codebook that is not there, a result that
is no scalar - is said when the recipe is read. Losses with networks in them are left out: networks cost time, their
weights perhaps a download, and on the meta device torch would import its compiler.
"""

import math
from collections.abc import Collection, Mapping
from typing import Any

import torch

from smalti.extractors import Extractor
from smalti.losses import Loss
from smalti.objectives.names import PREDICTION, TARGET
from smalti.objectives.term import Term
from smalti.outputs import CodebookRecord

MOST_VALUES = 2**25  # of an image: 3 x 3,300 x 3,300


def known_values(
    image: tuple[int, int, int], judged: str | None, codebooks: Mapping[str, frozenset[str]]
) -> Mapping[str, Any]:
    """Context name -> value of zeros, for what is known of a batch of one before there is one.

    Nothing of images that would take long, or more memory than there is.

    Args:
        image: shape (C, H, W) of the images.
        judged: name of the output that is such an image too, or None.
        codebooks: their names -> the terms that mean something for them.
    """
    if math.prod(image) > MOST_VALUES:
        return {}
    images = torch.zeros(()).expand(1, *image)
    values: dict[str, Any] = dict.fromkeys(TARGET, images)
    if judged is not None:
        values |= dict.fromkeys((*PREDICTION, judged), images)
    if codebooks:
        values["codebooks"] = {name: _record(terms) for name, terms in codebooks.items()}
    return values


def can_be_rehearsed(loss: object, asked: Collection[str], values: Collection[str]) -> bool:
    """Whether ``loss`` is one of this package without a network in it, and ``values`` has all the names it asks for.

    Losses from elsewhere are not called: what they do besides computing is not known.
    """
    known = isinstance(loss, Loss) and set(asked) <= set(values)
    return known and not any(isinstance(part, Extractor) for part in loss.modules())  # type: ignore[attr-defined]


def objection(term: Term, values: Mapping[str, Any]) -> str | None:
    """What the loss of ``term`` says against ``values``; None if nothing. Optional inputs are left out."""
    try:
        with torch.no_grad():
            term.evaluate({name: values[source] for name, source in required(term).items()})
    except ValueError as error:
        return str(error).removeprefix(f"term {term.name!r}: ")
    return None


def required(term: Term) -> dict[str, str]:
    """The inputs that the loss must be given -> their context names."""
    return {name: term.bindings[name] for name, needed in term.arguments.items() if needed}


def _record(terms: frozenset[str]) -> CodebookRecord:
    latent, rows = torch.zeros(1, 4, 2, 2), torch.zeros(8, 4)
    indices = torch.zeros(1, 2, 2, dtype=torch.int64)
    return CodebookRecord(z=latent, quantized=latent, latent=latent, codebook=rows, indices=indices, terms=terms)
