"""Where drawn images go: one picture, an .npz as tools that compute FID expect it, a folder of pictures."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smalti.registry import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

SMALLEST = 32  # a tile of a picture with fewer pixels is enlarged


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where images are to go; at least one place.

    Args:
        picture: a .png of all of them.
        numbers: an .npz with ``arr_0``, uint8 (N, H, W, C).
        folder: of a .png for each.
    """

    picture: Path | None = None
    numbers: Path | None = None
    folder: Path | None = None

    @classmethod
    def asked(cls, out: Path | None, npz: Path | None, folder: Path | None, force: bool) -> "Places":
        """The places of the options ``--out``, ``--npz`` and ``--folder``.

        Raises:
            UserError: for none, two of a kind, another ending, or what is there already without ``force``.
        """
        from smalti.cli._files import refuse_existing

        if out is None and npz is None and folder is None:
            raise UserError("nowhere to write to: give --out, --npz or --folder")
        if out is not None and out.suffix not in {".png", ".npz"}:
            raise UserError(f"--out {out}: expected a name that ends in .png or .npz; --folder takes a folder")
        if npz is not None and npz.suffix != ".npz":
            raise UserError(f"--npz {npz}: expected a name that ends in .npz")
        if npz is not None and out is not None and out.suffix == ".npz":
            raise UserError(f"--out {out} and --npz {npz}: expected one of them")
        for path in (out, npz):
            if path is not None:
                refuse_existing(path, force)
        if folder is not None and folder.exists() and (not folder.is_dir() or (not force and any(folder.iterdir()))):
            raise UserError(f"--folder {folder} is not empty: choose another folder, or --force to write into it")
        picture = out if out is not None and out.suffix == ".png" else None
        return cls(picture=picture, numbers=npz if picture is not None or out is None else out, folder=folder)

    @property
    def copies(self) -> int:
        """Bytes that a value of an image takes, of those that are kept until the end."""
        return (8 if self.picture is not None else 0) + (2 if self.numbers is not None else 0) or 1

    def __str__(self) -> str:
        return ", ".join(str(path) for path in (self.picture, self.numbers, self.folder) if path is not None)

    def write(self, batches: "Iterable[Tensor]", count: int, columns: int) -> None:
        """Writes ``count`` images, from batches (n, C, H, W) in [-1, 1].

        Args:
            batches: read once.
            count: how many images they hold.
            columns: of the picture.
        """
        kept: list[Tensor] = []
        numbers: list[np.ndarray] = []
        for batch in batches if self.folder is None else _written(self.folder, batches, count):
            if self.picture is not None:
                kept.append(batch.float().cpu())
            if self.numbers is not None:
                numbers.append(_array_of(batch))
        if self.picture is not None:
            write_picture(self.picture, kept, columns)
        if self.numbers is not None:
            _write_numbers(self.numbers, numbers, count)


def write_picture(path: Path, batches: "list[Tensor]", columns: int) -> None:
    """Writes images (n, C, H, W) in [-1, 1] as one picture, small ones enlarged by a whole factor."""
    import torch

    from smalti.data.grid import save_grid

    images = torch.cat(batches)
    factor = max(1, SMALLEST // min(images.shape[-2:]))
    images = images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    save_grid(path, images, columns=columns, gap=2)


def _written(folder: Path, batches: "Iterable[Tensor]", count: int) -> "Iterator[Tensor]":
    """The batches, each written to ``folder`` as 000000.png, 000001.png, ... on its way."""
    from smalti.data.grid import to_pillow
    from smalti.writing import whole

    digits = max(6, len(str(count - 1)))
    number = 0
    folder.mkdir(parents=True, exist_ok=True)
    for batch in batches:
        for image in batch:
            with whole(folder / f"{number:0{digits}d}.png") as unfinished:
                to_pillow(image).save(unfinished, format="PNG")
            number += 1
        yield batch


def _array_of(batch: "Tensor") -> "np.ndarray":
    from smalti.data.grid import to_uint8

    array: np.ndarray = to_uint8(batch).permute(0, 2, 3, 1).cpu().numpy()
    return array


def _write_numbers(path: Path, arrays: "list[np.ndarray]", count: int) -> None:
    """All images, uint8 with shape (count, H, W, C)."""
    import numpy as np

    from smalti.cli._files import write_npz

    found = np.concatenate(arrays)
    if len(found) != count:
        raise ValueError(f"{len(found)} images: expected {count}")
    write_npz(path, [("arr_0", found)])
