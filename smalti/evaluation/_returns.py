"""What tokenizers return, under the names and in the order that each has: a latent, tokens, images.

``encode`` gives a latent, tokens, an object that has one under a known name, or a tuple whose first tensor is the
latent and whose only whole numbers are the tokens (taming's ``quant, loss, (perplexity, one_hot, indices)``).
``decode`` gives images, an object that has them as ``sample``, or a tuple that begins with them.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from smalti.outputs import BottleneckOutput, DiagonalGaussian
from smalti.registry import UserError

LATENTS = ("latents", "latent")
DISTRIBUTION, IMAGES = "latent_dist", "sample"


def encoded(found: Any, planes: int, name: str) -> BottleneckOutput:
    """What ``encode`` returned, as smalti has it.

    Args:
        found: a floating latent (B, C, ...), whole tokens, an object or a tuple.
        planes: of tokens; 0: of a tokenizer without.
        name: of the tokenizer, for messages.

    Raises:
        UserError: if no latent is in it, or several tensors may be the tokens.
    """
    if isinstance(found, BottleneckOutput):
        return found
    posterior = getattr(found, DISTRIBUTION, None)
    if posterior is not None:
        mode = posterior.mode()
        moments = (getattr(posterior, "mean", None), getattr(posterior, "logvar", None))
        known = all(isinstance(of, Tensor) and of.shape == mode.shape for of in moments)
        return BottleneckOutput(latent=mode, posterior=DiagonalGaussian(*moments) if known else None)  # type: ignore[arg-type]
    for word in LATENTS:
        if isinstance(getattr(found, word, None), Tensor):
            indices = getattr(found, "indices", None)
            return _with_tokens(getattr(found, word), [indices] if isinstance(indices, Tensor) else [], planes, name)
    tensors = list(_tensors(found))
    floating = [value for value in tensors if value.is_floating_point()]
    whole = [value for value in tensors if not value.is_floating_point()]
    latent = next((value for value in floating if value.ndim > 2), None)
    if latent is None and len(whole) == 1:
        return BottleneckOutput(latent=whole[0], indices=_planes(whole[0], whole[0], planes, name))
    if latent is None:
        raise UserError(
            f"{name}: encode gave {_shown(found)}: expected a latent (B, C, h, w), tokens, a BottleneckOutput, or an "
            f"object with {DISTRIBUTION}, {' or '.join(LATENTS)}"
        )
    return _with_tokens(latent, whole, planes, name)


def decoded(found: Any, images: Sequence[int], name: str) -> Tensor:
    """Images (B, C, H, W) out of what ``decode`` returned.

    Args:
        found: images, an object with ``sample``, or a tuple that begins with images.
        images: the shape that was encoded.
        name: of the tokenizer, for messages.

    Raises:
        UserError: if there are none in it, or of another shape.
    """
    made = getattr(found, IMAGES, found)
    if isinstance(made, (tuple, list)) and made:
        made = made[0]
    if not isinstance(made, Tensor) or not made.is_floating_point():
        raise UserError(f"{name}: decode gave {_shown(found)}: expected images (B, C, H, W) in [-1, 1]")
    if tuple(made.shape) != tuple(images):
        raise UserError(f"{name}: decode gave {tuple(made.shape)} of images {tuple(images)}: expected the same shape")
    return made


def _with_tokens(latent: Tensor, whole: Sequence[Tensor], planes: int, name: str) -> BottleneckOutput:
    if not planes or not whole:
        return BottleneckOutput(latent=latent)
    if len(whole) > 1:
        shapes = ", ".join(str(tuple(value.shape)) for value in whole)
        raise UserError(f"{name}: encode gave {len(whole)} tensors of whole numbers ({shapes}): expected tokens alone")
    return BottleneckOutput(latent=latent, indices=_planes(whole[0], latent, planes, name))


def _planes(tokens: Tensor, latent: Tensor, planes: int, name: str) -> Tensor:
    """Tokens (B, G, ...) of any shape that holds them in this order; those of all images may be in one row."""
    shape = tuple(tokens.shape)
    if not planes:
        raise UserError(f"{name}: encode gave tokens {shape}, but codebook_sizes is empty: expected name -> codes")
    count, places = len(latent), tuple(latent.shape[2:])
    if tokens.ndim > 2 and shape[:2] == (count, planes):
        return tokens.long()
    positions = tokens.numel() // max(count * planes, 1)
    if count * planes * positions != tokens.numel():
        raise UserError(f"{name}: tokens {shape}: expected {planes} for each place of {count} images")
    laid = tokens.long().reshape(count, planes, positions)
    return laid.reshape(count, planes, *places) if _size(places) == positions else laid.unsqueeze(2)


def _size(places: Sequence[int]) -> int:
    found = 1
    for side in places:
        found *= side
    return found


def _tensors(found: Any) -> Iterator[Tensor]:
    """All tensors of nested tuples, mappings and records, in order."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _tensors(value)
    elif isinstance(found, (tuple, list)):
        for value in found:
            yield from _tensors(value)
    elif dataclasses.is_dataclass(found):
        for item in dataclasses.fields(found):
            yield from _tensors(getattr(found, item.name))


def _shown(found: Any) -> str:
    if isinstance(found, Tensor):
        return f"{found.dtype} {tuple(found.shape)}"
    if isinstance(found, (tuple, list)):
        return f"a {type(found).__name__} of {', '.join(map(_shown, found)) or 'nothing'}"
    return f"a {type(found).__name__}"
