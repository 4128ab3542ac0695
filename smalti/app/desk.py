"""The desk of a reader who edits tokens: the picture, the tokens so far, the places that were chosen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from smalti.app.editing import Edit, all_mean, decoded, masked, planes_of, swapped, with_code
from smalti.app.pictures import fitted, picture, tensor_of, tile_of, token_map, told
from smalti.models.autoencoder import Autoencoder
from smalti.registry import UserError

CHOSEN: Mapping[str, int] = {"swap": 2, "mask": 2, "code": 1, "mean": 0, "undo": 0, "reset": 0}
"""What can be done -> places that must be chosen for it."""


@dataclass
class Desk:
    """What a reader works on.

    Args:
        model: whose tokens they are.
        original: the picture (1, C, H, W).
        edits: all tokens so far, the newest last; the first are those of the picture.
        places: rows and columns that were chosen, at most two.
    """

    model: Autoencoder
    original: Tensor
    edits: list[Edit]
    places: list[tuple[int, int]] = field(default_factory=list)

    def choose(self, x: int, y: int) -> None:
        """Chooses the token under a point of the map; a third one is the first again."""
        tile = tile_of(*self.edits[-1].indices.shape[-2:])
        place = (y // tile, x // tile)
        self.places = [*self.places, place] if len(self.places) == 1 else [place]

    def do(self, what: str, plane: str, code: int = 0) -> None:
        """Changes tokens.

        Args:
            what: one of ``CHOSEN``.
            plane: name of the index plane.
            code: for ``code``.

        Raises:
            UserError: if too few places were chosen, or there is no such code.
        """
        if len(self.places) < CHOSEN[what]:
            raise UserError(f"choose {'a token' if CHOSEN[what] == 1 else 'two tokens'} on the map first")
        if what in {"undo", "reset"}:
            self.edits = self.edits[: 1 if what == "reset" else max(len(self.edits) - 1, 1)]
            return
        now, number = self.edits[-1], planes_of(self.model).index(plane)
        if what == "swap":
            new = swapped(now, number, self.places[0], self.places[1])
        elif what == "code":
            new = with_code(now, number, self.places[0], code, self.model.codebook_sizes[plane])
        elif what == "mask":
            new = masked(now, plane, self.places[0], self.places[1])
        else:
            new = all_mean(now, plane)
        self.edits = [*self.edits, new]

    def view(self, plane: str) -> tuple[Image.Image, Image.Image, str]:
        """The map of an index plane, what all tokens decode to, and both in words."""
        edit, number = self.edits[-1], planes_of(self.model).index(plane)
        made = decoded(self.model, edit)
        marks = [
            f"{letter}: row {row}, column {column}, code {int(edit.indices[0, number, row, column])}"
            for letter, (row, column) in zip("AB", self.places, strict=False)
        ]
        text = "\n\n".join([told(self.model, self.original, made, edit.indices), *marks])
        return token_map(edit.indices[0, number], self.places, edit.means.get(plane)), picture(made), text


def desk_of(path: Path, model: Autoencoder, longest: int, max_pixels: int) -> Desk:
    """A desk with the picture of a file.

    Args:
        path: of the file.
        model: with codebooks.
        longest: pixels that its longer side has at most.
        max_pixels: a file with more is not decoded.

    Raises:
        UserError: if it cannot be read, or the model has no tokens.
    """
    original = tensor_of(fitted(path, longest, [model.factor], max_pixels), model)
    with torch.inference_mode():
        indices = model.encode(original).indices
    if indices is None:
        raise UserError(f"{type(model.bottleneck).__name__} is continuous: it has no tokens")
    return Desk(model, original, [Edit(indices=indices.cpu())])
