"""Tar archives of samples, as WebDataset writes them, read in any order."""

import io
import json
import logging
import re
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any, Literal

import numpy as np

from smalti.data import ImageSource
from smalti.data._decoder import RESERVED, Decoder
from smalti.data._decoding import MAX_PIXELS, Background, MaxPixels, Reading, ValueRange
from smalti.data._fingerprint import Entries
from smalti.data._table import INT64, some
from smalti.data._tar import Sample, read_span, samples_of
from smalti.data.image_folder import SUFFIXES
from smalti.nn.distributed import rank
from smalti.registry import UserError

log = logging.getLogger("smalti")

IMAGES = tuple(suffix.removeprefix(".") for suffix in SUFFIXES)
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_JSON = "json."


class WebDataset(ImageSource):
    """Samples in tar archives, in the layout of WebDataset (Aizman et al., arXiv:2001.01858).

    Files that follow each other and share a name up to the first dot are a sample: ``0001.jpg``, ``0001.cls``. Headers
    of all archives are read once, when the source is opened; after that samples are read in any order, so that epochs
    are shuffled whole and a run is resumed exactly. Archives must be plain ``.tar``, on a local disk.

    Args:
        path: an archive, a folder of archives, or a pattern: ``train-{000..099}.tar``, ``shards/*.tar``.
        suffixes: of images, the first that a sample has is its image.
        columns: name of a column -> suffix of its file: ``{label: cls, text: txt, mask: mask.png}``; ``json.score`` is
            the entry ``score`` of the file ``json``. ``cls`` is a whole number, ``txt`` text, ``npy`` an array.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        max_pixels: an image with more pixels counts as unreadable and is never decoded.
        value_range: of images with 16 bits a channel: ``full``, or their largest possible value, which becomes white.
        background: ``drop`` leaves alpha out; ``white``, ``black`` or a colour ``r,g,b`` is what images are composited
            onto.

    Raises:
        UserError: if an archive is missing, compressed or damaged, or if a sample lacks a column.
    """

    locations = ("path",)

    def __init__(
        self,
        path: str,
        suffixes: Sequence[str] = IMAGES,
        columns: Mapping[str, str] | None = None,
        image_channels: Literal[1, 3, 4] = 3,
        max_pixels: MaxPixels = MAX_PIXELS,
        value_range: ValueRange = "full",
        background: Background = "drop",
    ) -> None:
        reading = Reading(max_pixels=max_pixels, value_range=value_range, background=background)
        self._decoder = Decoder(image_channels, reading)
        self.image_channels = image_channels
        self._columns = {name: suffix.lower().removeprefix(".") for name, suffix in (columns or {}).items()}
        for name in set(RESERVED) & set(self._columns):
            raise UserError(f"columns.{name}: the column {name!r} exists already: choose another name")
        self.columns = ("image", *self._columns)
        self.archives = _archives(path)
        wanted = [suffix.lower().removeprefix(".") for suffix in suffixes]
        self._samples: list[tuple[Sample, str]] = []
        without: list[str] = []
        for sample in samples_of(self.archives):
            image = next((suffix for suffix in wanted if suffix in sample.members), None)
            if image is None:
                without.append(self._name(sample, ""))
            else:
                self._samples.append((sample, image))
                self._require(sample)
        self._tell(path, without, wanted)
        self.names = tuple(self._name(sample, f".{suffix}") for sample, suffix in self._samples)
        if len(set(self.names)) < len(self.names):
            seen: set[str] = set()
            twice = next(name for name in self.names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            raise UserError(f"path={path!r}: {twice} stands twice")

    @classmethod
    def columns_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``image`` and the columns that are asked for."""
        return ("image", *(options.get("columns") or ()))

    def __len__(self) -> int:
        """Number of samples with an image."""
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Item ``index``: its image, and the columns that were asked for.

        Raises:
            UnreadableImageError: if an image of it cannot be decoded.
            UserError: if another column cannot be read.
        """
        sample, suffix = self._samples[index]
        item: dict[str, Any] = {"image": self._image(index, sample, suffix, "image")}
        for name, wanted in self._columns.items():
            if wanted.rpartition(".")[2] in IMAGES and not wanted.startswith(_JSON):
                item[name] = self._image(index, sample, wanted, name)
            else:
                item[name] = self._value(index, sample, wanted, name)
        return item

    def fingerprint(self) -> Mapping[str, Entries]:
        """Images and the files of columns, each with its size in bytes."""
        groups: dict[str, Entries] = {"images": self._sizes(None)}
        return groups | {
            f"columns.{column}": self._sizes(_member_of(suffix)) for column, suffix in self._columns.items()
        }

    def _sizes(self, member: str | None) -> Entries:
        for name, (sample, suffix) in zip(self.names, self._samples, strict=True):
            yield name, sample.members[member or suffix][1]

    def _name(self, sample: Sample, suffix: str) -> str:
        return f"{self.archives[sample.archive].stem}/{sample.key}{suffix}"

    def _require(self, sample: Sample) -> None:
        for column, suffix in self._columns.items():
            member = _member_of(suffix)
            if member not in sample.members:
                has = ", ".join(sample.members)
                raise UserError(f"columns.{column}: {self._name(sample, '')} has no file .{member}, only {has}")

    def _image(self, index: int, sample: Sample, suffix: str, column: str) -> Any:
        content = read_span(self.archives[sample.archive], sample.members[suffix])
        return self._decoder.read(content, column, self.names[index])

    def _value(self, index: int, sample: Sample, suffix: str, column: str) -> Any:
        member = _member_of(suffix)
        entry = suffix.removeprefix(member).removeprefix(".")
        content = read_span(self.archives[sample.archive], sample.members[member])
        try:
            return _parsed(content, member, entry)
        except (ValueError, KeyError, TypeError, EOFError) as error:
            why = f"no entry {error}" if isinstance(error, KeyError) else error
            raise UserError(f"columns.{column}: .{member} of {self.names[index]}: {why}") from error

    def _tell(self, path: str, without: Sequence[str], wanted: Sequence[str]) -> None:
        if not self._samples:
            raise UserError(f"path={path!r}: no image in these archives (looked for {', '.join(wanted)})")
        if without and rank() == 0:
            log.warning("%d samples in %s have no image and are left out: %s", len(without), path, some(without))


def _archives(path: str) -> list[Path]:
    """The archives that a path, a folder or a pattern means, sorted."""
    found: list[Path] = []
    for pattern in _expanded(str(Path(path).expanduser())):
        if Path(pattern).is_dir():
            matched = sorted(Path(pattern).glob("*.tar"))
        else:
            matched = [Path(pattern)] if Path(pattern).exists() else sorted(map(Path, glob(pattern)))
        if not matched:
            raise UserError(f"path={path!r}: no archive {pattern}")
        found += matched
    return found


def _expanded(pattern: str) -> list[str]:
    """``{000..002}`` written out, as a shell would.

    >>> _expanded("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
    """
    found = _RANGE.search(pattern)
    if found is None:
        return [pattern]
    first, last = found.groups()
    numbers = (f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1))
    return [one for number in numbers for one in _expanded(pattern[: found.start()] + number + pattern[found.end() :])]


def _member_of(suffix: str) -> str:
    """The file that a column is in."""
    return "json" if suffix.startswith(_JSON) else suffix


def _parsed(content: bytes, member: str, entry: str) -> Any:
    kind = member.rpartition(".")[2]
    if kind == "npy":
        return np.load(io.BytesIO(content), allow_pickle=False)
    text = content.decode("utf-8")
    if kind == "json":
        value = json.loads(text)[entry] if entry else text
    else:
        value = int(text) if kind in {"cls", "index", "inx", "id"} else text
    if isinstance(value, (list, dict)) or value is None:
        raise ValueError(f"{value!r}: expected a number or text")
    if isinstance(value, int) and value not in INT64:
        raise ValueError(f"{value}: expected a number of at most 64 bits")
    return value
