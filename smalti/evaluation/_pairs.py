"""A folder of reconstructions that somebody made: each image is matched with the original of its name."""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smalti.data.image_folder import ImageFolder
from smalti.evaluation.adapters import Adapter
from smalti.metrics import Observation
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError, suggest

LISTED = 5


class Pairs(Adapter):
    """Images that were reconstructed elsewhere, with the names of their originals, or with another suffix.

    They are taken as they are and must have the size that the protocol gives the originals. Their bits are not known.

    Args:
        folder: of the reconstructions.
        originals: names of the originals.

    Raises:
        UserError: if an original has no reconstruction, or a reconstruction no original.
    """

    def __init__(self, folder: Path, originals: Sequence[str]) -> None:
        super().__init__()
        self.name, self.origin = folder.name or str(folder), str(folder)
        self.source = ImageFolder(str(folder))
        self.index = _paired(folder, originals, self.source.names)

    def see(self, images: Tensor, names: Sequence[str]) -> Observation:
        """What metrics see of images (B, 3, H, W) in [-1, 1], called ``names``.

        Raises:
            UserError: if a reconstruction is not of the size that its original has under the protocol.
        """
        made = torch.stack([self._of(name, images.shape[-2:]) for name in names]).to(images)
        return Observation(
            target=images,
            reconstruction=made / 127.5 - 1,
            bottleneck=BottleneckOutput(latent=images[:, :0]),
            codebook_sizes={},
            bits=torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device),
        )

    def _of(self, name: str, size: Sequence[int]) -> Tensor:
        """The reconstruction of an original, numbers from 0 to 255 with shape (3, H, W)."""
        image = self.source[self.index[name]]["image"]
        if (image.height, image.width) != tuple(size):
            raise UserError(
                f"{self.source.names[self.index[name]]}: {image.width} x {image.height} pixels, its original has "
                f"{size[1]} x {size[0]} under this protocol"
            )
        return torch.from_numpy(np.array(image, dtype=np.uint8)).permute(2, 0, 1)

    def fingerprint(self) -> Mapping[str, Any]:
        """How many files there are."""
        return {"files": len(self.index)}


def _paired(folder: Path, originals: Sequence[str], made: Sequence[str]) -> dict[str, int]:
    """Name of an original -> number of its reconstruction: of the same name, else the same but for its suffix."""
    exact = {name: index for index, name in enumerate(made)}
    stems: dict[str, list[str]] = {}
    for name in made:
        stems.setdefault(_stem(name), []).append(name)
    found, missing = {}, []
    for original in originals:
        alike = [original] if original in exact else stems.get(_stem(original), [])
        if len(alike) > 1:
            raise UserError(f"{folder}: {original} may be {' or '.join(alike[:LISTED])}: expected one of that name")
        if alike:
            found[original] = exact[alike[0]]
        else:
            missing.append(original)
    taken = set(found.values())
    spare = [name for name, index in exact.items() if index not in taken]
    twice = len(found) - len(taken)
    if missing or spare or twice:
        _refuse(folder, len(originals), missing, spare, twice)
    return found


def _refuse(folder: Path, count: int, missing: Sequence[str], spare: Sequence[str], twice: int) -> None:
    lines = [f"{folder}: {len(missing)} of {count} originals have no reconstruction, {len(spare)} files no original"]
    if twice:
        lines[0] += f", {twice} files are of several originals that differ in their suffix only"
    stems = sorted({_stem(name) for name in spare})
    lines += [f"  no reconstruction of {name}{suggest(_stem(name), stems)}" for name in missing[:LISTED]]
    lines += [f"  no original of {name}" for name in spare[:LISTED]]
    raise UserError("\n".join(lines))


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))
