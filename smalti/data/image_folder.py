"""A folder of images, with side folders and a table that belong to them by file name."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from smalti.config.places import local, why_missing
from smalti.data import ImageSource
from smalti.data._decoder import RESERVED, Decoder
from smalti.data._decoding import (
    MAX_PIXELS,
    Background,
    MaxPixels,
    Reading,
    ValueRange,
    Verify,
    gap,
    spread,
    survey,
)
from smalti.data._fingerprint import Entries, sized
from smalti.data._table import NO_TABLE, read_table, some
from smalti.nn.distributed import rank
from smalti.registry import UserError

log = logging.getLogger("smalti")

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_NAMED_AT_MOST = 20


class ImageFolder(ImageSource):
    """All images below a folder, sorted by their relative names.

    Files that cannot be read are counted, named in one line of the log and left out; what ``header`` overlooks (damage
    in the middle of a file) shows when the item is read, see ``UnreadableImageError``. How odd files are converted
    stands in ``smalti.data._decoding``. Hidden files and the side folders are not searched.

    Args:
        path: the folder.
        recursive: whether folders in it are searched too; links are followed.
        suffixes: file names that count as images end so, in any case.
        columns: name of a column -> folder with a file of the same relative name (any image suffix) for every image:
            ``mask``, ``alpha`` and ``weights`` are read as one channel, ``condition``, ``foreground``, ... as RGB.
        table: a CSV file with a column ``file`` (relative names, as in ``names``) and a row for every image. Its column
            ``weight`` becomes ``weights`` (numbers >= 0), ``label`` must be whole numbers, ``text`` stays text;
            any other column is numeric if all its cells are.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        verify: how files are looked at when the folder is read: ``header`` (start and end), ``decode`` (everything), or
            ``none``, for folders so large that even this takes minutes: then sizes are not in the fingerprint, either.
        max_pixels: a file with more pixels is told by its header, counts as unreadable and is never decoded.
        value_range: of images with 16 bits a channel: ``full``, or their largest possible value, as 4095 for 12 bits,
            which becomes white; larger values count as unreadable. Masks are always taken over the full range.
        background: ``drop`` leaves alpha out; ``white``, ``black`` or a colour ``r,g,b`` is what images are composited
            onto.

    Raises:
        UserError: if a folder or the table is missing, without a readable image, or lacks a file or row for one.
    """

    locations = ("path", "columns", "table")

    def __init__(
        self,
        path: str,
        recursive: bool = True,
        suffixes: Sequence[str] = SUFFIXES,
        columns: Mapping[str, str] | None = None,
        table: str | None = None,
        image_channels: Literal[1, 3, 4] = 3,
        verify: Verify = "header",
        max_pixels: MaxPixels = MAX_PIXELS,
        value_range: ValueRange = "full",
        background: Background = "drop",
    ) -> None:
        self._verify = verify
        self._reading = Reading(max_pixels=max_pixels, value_range=value_range, background=background)
        self._decoder = Decoder(image_channels, self._reading)
        self.image_channels = image_channels
        self.folder = _existing_folder("path", path)
        suffixes = tuple(suffix.lower() for suffix in suffixes)
        sides = {name: _existing_folder(f"columns.{name}", folder) for name, folder in (columns or {}).items()}
        names = sorted(_search(self.folder, recursive, suffixes, leave_out=sides.values()))
        if not names:
            raise UserError(f"path={path!r}: no image in this folder (looked for {', '.join(suffixes)})")
        found = survey([(name, self.folder / name) for name in names], verify, self._reading)
        unreadable = dict(found.defects)
        names = [name for name in names if name not in unreadable]
        files = {column: _match(folder, names, suffixes, column) for column, folder in sides.items()}
        for column, matched in files.items():
            unreadable |= survey([(n, matched[n]) for n in names], verify, self._decoder.reading_of(column)).defects
        self.names = tuple(name for name in names if name not in unreadable)
        self.unreadable = tuple(sorted(unreadable))
        _tell(self.folder, len(self.names), unreadable)
        self._tell_gap([name for name in found.deep if name not in unreadable])
        self._sides = {column: tuple(found[name] for name in self.names) for column, found in files.items()}
        self._table = read_table(local(table), self.names) if table is not None else NO_TABLE
        for name in (*self._sides, *self._table.columns):
            if name in RESERVED or (name in self._sides and name in self._table.columns):
                raise UserError(f"column {name!r} exists already: choose another name")
        self.columns = ("image", *self._sides, *self._table.columns)
        self.labels = self._table.columns.get("label")

    @classmethod
    def columns_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``image``, the side folders, and whatever the table holds."""
        return ("image", *(options.get("columns") or ()), *(("*",) if options.get("table") else ()))

    def __len__(self) -> int:
        """Number of readable images."""
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index``: Pillow images, numbers and text by column.

        Raises:
            UnreadableImageError: if a file of this item turns out to be damaged.
        """
        item: dict[str, Any] = {"image": self._decoder.read(self.folder / self.names[index], "image")}
        for name, paths in self._sides.items():
            item[name] = self._decoder.read(paths[index], name)
        return item | {name: values[index] for name, values in self._table.columns.items()}

    def size_of(self, index: int) -> tuple[int, int]:
        """Height and width of image ``index``, from the header of its file where that is enough.

        Raises:
            UnreadableImageError: if it is damaged.
        """
        return self._decoder.size(self.folder / self.names[index])

    def place_of(self, index: int) -> str:
        """The table and the row that say what belongs to item ``index``."""
        return self._table.place_of(self.names[index])

    def fingerprint(self) -> Mapping[str, Entries]:
        """Readable images with their sizes in bytes, the files of the side folders and the rows of the table."""
        folder = os.path.join(self.folder, "")  # joined as text: of millions of paths pathlib makes minutes
        files = {"images": [folder + name for name in self.names]}
        files |= {f"columns.{column}": list(map(str, paths)) for column, paths in self._sides.items()}
        groups: dict[str, Entries] = {name: self._sized(paths) for name, paths in files.items()}
        return groups | ({"table": self._table.marks(self.names)} if self._table.columns else {})

    def _sized(self, paths: Sequence[str]) -> Entries:
        return ((name, "") for name in self.names) if self._verify == "none" else sized(self.names, paths)

    def _tell_gap(self, deep: Sequence[str]) -> None:
        """One line in the log where images of 16 bits use less than a quarter of them."""
        if rank() != 0:
            return
        looked_at = [path for _, path in spread([(name, self.folder / name) for name in deep])]
        said = gap(looked_at, self._reading)
        if said is not None:
            log.warning("images in %s have 16 bits: in %d that were looked at, %s", self.folder, len(looked_at), said)


def _tell(folder: Path, readable: int, unreadable: Mapping[str, str]) -> None:
    """One line in the log that counts and names the images that are left out; an error if none is left."""
    if not unreadable:
        return
    listed = some([f"{name} ({reason})" for name, reason in sorted(unreadable.items())], _NAMED_AT_MOST)
    total = readable + len(unreadable)
    if not readable:
        raise UserError(f"none of the {total} images in {folder} can be read: {listed}")
    if rank() == 0:
        log.warning("%d of %d images in %s cannot be read and are left out: %s", len(unreadable), total, folder, listed)


def _existing_folder(option: str, path: str) -> Path:
    folder = local(path)
    if not folder.is_dir():
        kind = "is a file, expected a folder" if folder.exists() else f"no such folder{why_missing(path)}"
        raise UserError(f"{option}={path!r}: {kind}")
    return folder


def _search(folder: Path, recursive: bool, suffixes: tuple[str, ...], leave_out: Iterable[Path]) -> Iterator[str]:
    """Relative names of the images in ``folder``; every folder is visited once, whatever links lead to it.

    Folders in it that cannot be opened, as ``lost+found`` of a disk, are named in the log.

    Raises:
        UserError: if ``folder`` itself cannot be opened.
    """

    def closed(error: OSError) -> None:
        if error.filename == str(folder):
            raise UserError(f"{folder}: {error.strerror}") from error
        if rank() == 0:
            log.warning("%s: %s; the images in this folder are left out", error.filename, error.strerror)

    visited = {path.resolve() for path in leave_out if path.resolve() != folder.resolve()}
    for root, folders, files in os.walk(folder, onerror=closed, followlinks=True):
        here = Path(root).resolve()
        if here in visited:
            folders.clear()
            continue
        visited.add(here)
        folders[:] = sorted(name for name in folders if recursive and not name.startswith("."))
        for name in files:
            if name.lower().endswith(suffixes) and not name.startswith("."):
                yield (Path(root) / name).relative_to(folder).as_posix()


def _match(folder: Path, names: Sequence[str], suffixes: tuple[str, ...], column: str) -> dict[str, Path]:
    """Image name -> file of the same relative name in a side folder, with the same suffix if there are several."""
    found: dict[str, list[str]] = {}
    for name in sorted(_search(folder, True, suffixes, ())):
        found.setdefault(os.path.splitext(name)[0], []).append(name)
    matched, missing = {}, []
    for name in names:
        candidates = found.get(os.path.splitext(name)[0], [])
        if not candidates:
            missing.append(name)
            continue
        if len(candidates) > 1 and name not in candidates:
            raise UserError(f"columns.{column}: {' and '.join(candidates)} in {folder} both belong to {name}")
        matched[name] = folder / (name if name in candidates else candidates[0])
    if missing:
        raise UserError(f"columns.{column}={str(folder)!r}: no file for {len(missing)} images: {some(missing)}")
    return matched
