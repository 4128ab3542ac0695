"""Files that a verb writes: whole or not at all, never over something that is there without being told to."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from smalti.registry import UserError
from smalti.writing import decodable, whole


def refuse_existing(path: Path, force: bool) -> None:
    """Refuses to write over a file.

    Raises:
        UserError: if it exists and ``force`` is not set.
    """
    if path.exists() and not force:
        raise UserError(f"{path} exists: choose another name, or --force to replace it")


def write_npz(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> int:
    """Writes named arrays one by one, so that only one is in memory, to a neighbour that is renamed at the end.

    Names are written as ``decodable`` spells them: what is not UTF-8 in them as ``\\xe9``.

    Returns:
        How many were written.

    Raises:
        UserError: if two names are spelled alike.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    with whole(path) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for given, array in arrays:
            name = decodable(given)
            if name in written:
                raise UserError(f"{path}: two images would be called {name} in it; rename one")
            written.add(name)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
    return len(written)
