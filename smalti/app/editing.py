"""Tokens of a picture that are exchanged, set, or replaced by the mean of their codebook; and what they decode to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

Place = tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Tokens as they are now.

    Args:
        indices: tokens (1, G, h, w), of G index planes.
        means: index plane -> bool (h, w): where the mean of its codebook stands for it.
    """

    indices: Tensor
    means: Mapping[str, Tensor] = field(default_factory=dict)


def planes_of(model: Autoencoder) -> list[str]:
    """Names of the index planes of a model, in order; none of a continuous one."""
    return list(model.codebook_sizes)


def swapped(edit: Edit, plane: int, first: Place, second: Place) -> Edit:
    """The tokens of two places (row, column) of an index plane exchanged."""
    for place in (first, second):
        _check(edit, place)
    indices = edit.indices.clone()
    indices[0, plane][first], indices[0, plane][second] = edit.indices[0, plane][second], edit.indices[0, plane][first]
    return replace(edit, indices=indices)


def with_code(edit: Edit, plane: int, place: Place, code: int, size: int) -> Edit:
    """A place (row, column) of an index plane with another code.

    Raises:
        UserError: if there is no such code.
    """
    _check(edit, place)
    if not 0 <= code < size:
        raise UserError(f"code {code}: expected 0 to {size - 1}")
    indices = edit.indices.clone()
    indices[0, plane][place] = code
    return replace(edit, indices=indices)


def masked(edit: Edit, name: str, first: Place, second: Place) -> Edit:
    """The mean of a codebook in the rectangle between two places (row, column)."""
    for place in (first, second):
        _check(edit, place)
    mask = edit.means.get(name, torch.zeros(edit.indices.shape[-2:], dtype=torch.bool)).clone()
    rows, columns = sorted((first[0], second[0])), sorted((first[1], second[1]))
    mask[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1] = True
    return replace(edit, means={**edit.means, name: mask})


def all_mean(edit: Edit, name: str) -> Edit:
    """The mean of a codebook everywhere."""
    return replace(edit, means={**edit.means, name: torch.ones(edit.indices.shape[-2:], dtype=torch.bool)})


def decoded(model: Autoencoder, edit: Edit) -> Tensor:
    """The image (1, C, H, W) of edited tokens.

    The mean stands for a codebook wherever any of its index planes is replaced by it.
    """
    bottleneck: Any = model.bottleneck
    with torch.inference_mode():
        latent = bottleneck.lookup(edit.indices.to(next(model.parameters()).device))
        mean, begin = bottleneck.mean_latent().to(latent), 0
        for name, width in bottleneck.codebook_channels.items():
            for plane, mask in edit.means.items():
                if plane == name or plane.rpartition(".")[0] == name:
                    where = mask.to(latent.device)
                    part, own = latent[:, begin : begin + width], mean[begin : begin + width, None, None]
                    latent[:, begin : begin + width] = torch.where(where, own, part)
            begin += width
        return model.decode(latent)


def _check(edit: Edit, place: Place) -> None:
    rows, columns = edit.indices.shape[-2:]
    if not (0 <= place[0] < rows and 0 <= place[1] < columns):
        raise UserError(f"row {place[0]}, column {place[1]}: expected rows to {rows - 1}, columns to {columns - 1}")
