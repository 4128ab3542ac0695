"""Handwritten digits that are already on the disk: 8 x 8 pixels, 1797 of them, in the package of scikit-learn.

The test part of the "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998, UCI Machine Learning
Repository, doi:10.24432/C50P49, CC BY 4.0): strokes of 13 people, counted in blocks of 4 x 4 pixels, 0 to 16.
"""

import gzip
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from smalti.data import ImageSource
from smalti.registry import UserError

HELD_OUT = 3  # every third digit: the file is in the order of its writers, and each of them is in both parts


class Digits(ImageSource):
    """Grey images of 8 x 8 pixels with their ``label``, 0 to 9; decoded once and kept in memory.

    Args:
        part: ``train`` (1198 digits), ``held_out`` (every third, 599), or ``all``.

    Raises:
        UserError: if scikit-learn, whose file is read, is not installed.
    """

    columns = ("image", "label")
    image_channels = 1
    labels: Sequence[int]

    def __init__(self, part: Literal["train", "held_out", "all"] = "all") -> None:
        if part not in {"train", "held_out", "all"}:
            raise ValueError(f"part={part!r}: expected 'train', 'held_out' or 'all'")
        with gzip.open(_locate(), "rt", encoding="ascii") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
        numbers = np.arange(len(table))
        chosen = {
            "train": numbers % HELD_OUT != 0,
            "held_out": numbers % HELD_OUT == 0,
            "all": np.full(len(table), True),
        }[part]
        self.names = tuple(f"digit-{number:04d}" for number in numbers[chosen])
        self.labels = table[chosen, -1].tolist()
        self._pixels = np.rint(table[chosen, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)

    def __len__(self) -> int:
        """Number of digits."""
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Digit ``index``: a grey Pillow image of 8 x 8 pixels, and its class."""
        return {"image": Image.fromarray(self._pixels[index]), "label": self.labels[index]}


def _locate() -> Path:
    """Where scikit-learn has the file; the package itself is not imported."""
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if path.is_file():
            return path
    raise UserError("the digits come with scikit-learn: pip install 'smalti[demo]'")
