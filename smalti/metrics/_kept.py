"""Features of real images kept on disk: a second tokenizer on the same images looks at none of them again.

A folder holds parts, each a file of rows: a number that an image has by its values (int64), and its d features
(float32). A part is called after the SHA-256 of what it is of and of its rows, and d. What is found is found by the
values of an image, so neither a limit, nor the order, nor ranks, nor a file changed under its name can mislead.
"""

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

SUFFIX, UNFINISHED = ".features", ".unfinished-"
DIGITS = 32
OLD = 24 * 3600.0  # seconds after which what a killed process left is removed


class KeptFeatures:
    """Features by network, in folders of their own.

    Args:
        folder: where; made if there is something to keep.
        say: told what was damaged or could not be written.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None) -> None:
        self.folder, self.say = folder, say
        self.shelves: dict[str, _Shelf] = {}

    def features(self, word: str, images: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Features (B, d) of images (B, C, H, W): those that are kept, or what ``compute`` gives, which is kept.

        Args:
            word: what the features are of, network and layer.
            images: real ones.
            compute: gives them.
        """
        from smalti.metrics._feature_accumulators import image_keys

        if word not in self.shelves:
            self.shelves[word] = _Shelf(self.folder / word, word, self.say)
        shelf, keys = self.shelves[word], image_keys(images).cpu().numpy()
        known = shelf.find(keys)
        if known is not None:
            return torch.from_numpy(known).to(images.device)
        found = compute()
        if found.dtype == torch.float32:  # others would come back with other values
            shelf.keep(keys, found.detach().cpu().numpy())
        return found

    def close(self) -> None:
        """Gives what was kept since the last time its name, under which others find it."""
        for shelf in self.shelves.values():
            shelf.close()

    def discard(self) -> None:
        """Removes what was kept since the last ``close``."""
        for shelf in self.shelves.values():
            shelf.discard()


class _Shelf:
    """The parts of one network's features."""

    def __init__(self, folder: Path, word: str, say: Callable[[str], None]) -> None:
        self.folder, self.word, self.say = folder, word, say
        self.parts = [part for path in sorted(folder.glob(f"*{SUFFIX}")) if (part := self._read(path)) is not None]
        self.file: IO[bytes] | None = None
        self.digest: Any = None
        self.width = 0
        self.full = False

    def find(self, keys: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any] | None":
        """The features of all keys (B,), with shape (B, d); None if any is missing."""
        for order, rows in self.parts:
            at = np.minimum(np.searchsorted(rows["key"], keys, sorter=order), len(order) - 1)
            found = rows[order[at]]
            if np.array_equal(found["key"], keys):
                return np.ascontiguousarray(found["row"])
        return None

    def keep(self, keys: "np.ndarray[Any, Any]", features: "np.ndarray[Any, Any]") -> None:
        """Adds rows to the part that is being written; a disk that is full is said once, and nothing more is kept."""
        if self.full or features.ndim != 2 or self.width not in {0, features.shape[1]}:
            return
        rows = np.empty(len(keys), _rows_of(features.shape[1]))
        rows["key"], rows["row"] = keys, features
        try:
            self._begin(features.shape[1])
            assert self.file is not None
            self.file.write(rows.tobytes())
        except OSError as error:
            self._give_up(error)
            return
        self.digest.update(rows.tobytes())

    def close(self) -> None:
        """Puts the part that is being written under its name, where it is found by the next."""
        if self.file is None:
            return
        try:
            self.file.close()
            os.replace(self.file.name, self.folder / f"{self.digest.hexdigest()[:DIGITS]}-{self.width}{SUFFIX}")
        except OSError as error:
            self._give_up(error)
        self.file = None

    def discard(self) -> None:
        """Removes the part that is being written."""
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            with contextlib.suppress(OSError):
                os.unlink(self.file.name)
        self.file = None

    def _begin(self, width: int) -> None:
        if self.file is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        for left in self.folder.glob(f"{UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > OLD:
                    left.unlink()
        self.file = (self.folder / f"{UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}").open("xb")
        self.digest, self.width = hashlib.sha256(self.word.encode()), width

    def _give_up(self, error: OSError) -> None:
        self.say(f"{self.folder}: features of the images cannot be kept: {error.strerror or error}")
        self.discard()
        self.full = True

    def _read(self, path: Path) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None":
        """Rows of a part, and the order of their keys; None, which is said, if it is not what its name says."""
        digits, _, width = path.name.removesuffix(SUFFIX).partition("-")
        digest = hashlib.sha256(self.word.encode())
        try:
            with path.open("rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
            if digest.hexdigest()[:DIGITS] != digits:
                raise ValueError("it is damaged or of something else")
            rows = np.memmap(path, dtype=_rows_of(int(width)), mode="r")
        except OSError as error:
            self.say(f"{path}: {error.strerror or error}: these features are computed anew")
            return None
        except ValueError as error:
            self.say(f"{path}: {error}: these features are computed anew")
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return np.argsort(rows["key"], kind="stable"), rows


def _rows_of(width: int) -> "np.dtype[Any]":
    return np.dtype([("key", "<i8"), ("row", "<f4", (width,))])
