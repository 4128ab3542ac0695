"""Data sets of the Hugging Face Hub, or in its formats on the disk: by number, or as a stream."""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from smalti.data import ImageSource, UnreadableImageError
from smalti.data._decoder import RESERVED, Decoder
from smalti.data._decoding import MAX_PIXELS, Background, MaxPixels, Reading, ValueRange
from smalti.data._fingerprint import Entries
from smalti.data._streaming import shuffled
from smalti.explain import explain
from smalti.registry import UserError, suggest

SAVED = ("dataset_dict.json", "state.json")  # in the folder of ``save_to_disk``


class HuggingFace(ImageSource):
    """Rows of a data set that the library ``datasets`` reads (Lhoest et al., arXiv:2109.02846).

    Without ``streaming`` its files are fetched once and rows are read in any order. A stream is read in its own order,
    shuffled within a buffer that the epoch keys: a resumed run reads past what was seen, without decoding it, and goes
    on exactly. Every process reads the whole stream and decodes its own part.

    Args:
        path: a repository of the Hub, or a local folder: of ``save_to_disk``, of parquet files, of images.
        split: which part.
        config: which of several configurations.
        revision: commit, tag or branch of the repository; name a commit where others shall get the same.
        image: the column with the images.
        columns: name of a column here -> its name there: ``{label: fine_label, text: caption}``.
        streaming: read in order, nothing is stored.
        rows: of a stream that does not say how many it has.
        shuffle_buffer: rows of a stream among which the next is drawn; 1 keeps the order.
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        max_pixels: an image with more pixels counts as unreadable and is never decoded.
        value_range: of images with 16 bits a channel: ``full``, or their largest possible value, which becomes white.
        background: ``drop`` leaves alpha out; ``white``, ``black`` or a colour ``r,g,b`` is what images are composited
            onto.

    Raises:
        UserError: if ``datasets`` is not installed, if the data set, split or a column is not there.
    """

    locations = ("path",)

    def __init__(
        self,
        path: str,
        split: str = "train",
        config: str | None = None,
        revision: str | None = None,
        image: str = "image",
        columns: Mapping[str, str] | None = None,
        streaming: bool = False,
        rows: Annotated[int, Field(ge=1)] | None = None,
        shuffle_buffer: Annotated[int, Field(ge=1)] = 1000,
        image_channels: Literal[1, 3, 4] = 3,
        max_pixels: MaxPixels = MAX_PIXELS,
        value_range: ValueRange = "full",
        background: Background = "drop",
    ) -> None:
        if rows is not None and not streaming:
            raise ValueError(f"rows={rows!r}: expected none without streaming, a data set by number knows them")
        reading = Reading(max_pixels=max_pixels, value_range=value_range, background=background)
        self._decoder = Decoder(image_channels, reading)
        self.image_channels, self.streamed, self._buffer = image_channels, streaming, shuffle_buffer
        self.path, self._split, self._revision = path, split, revision
        self._there = {"image": image, **(columns or {})}
        for name in set(RESERVED) & set(columns or {}):
            raise UserError(f"columns.{name}: the column {name!r} exists already: choose another name")
        self.columns = tuple(self._there)
        self._data = self._undecoded(_opened(path, split, config, revision, streaming))
        if streaming:
            self._count = rows or self._said()
            return
        self._count = len(self._data)
        self._files = _files_of(self._data, image)
        self.names = _names(self._files)
        if "label" in self._there:
            self.labels = list(self._data[self._there["label"]])

    @classmethod
    def columns_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """``image`` and the columns that are asked for."""
        return ("image", *(options.get("columns") or ()))

    @classmethod
    def is_streamed(cls, options: Mapping[str, Any]) -> bool:
        """Whether ``streaming`` is asked for."""
        return bool(options.get("streaming", False))

    def __len__(self) -> int:
        """Number of rows."""
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Row ``index``: its image, and the columns that were asked for.

        Raises:
            UnreadableImageError: if an image of it cannot be decoded.
            UserError: of a stream, whose rows come in order only.
        """
        if self.streamed:
            raise UserError(f"{self.path} is streamed: its rows come in order, for training only; streaming: false")
        return self.item(self._data[index], self.place_of(index))

    def stream(self, epoch: int, seed: int, skip: int) -> Iterator[Mapping[str, Any]]:
        """Rows of an epoch as they are stored, in the order that (seed, epoch) gives; ``item`` decodes one.

        Args:
            epoch: number of the pass.
            seed: of all passes.
            skip: how many rows to leave out at the start.
        """
        rows = ({name: values[0] for name, values in one.items()} for one in self._data.iter(batch_size=1))
        try:
            yield from islice(shuffled(rows, self._buffer, seed, epoch), skip, None)
        except OSError as error:
            raise UserError(f"{self.path}: the stream broke off: {explain(error)}") from error

    def item(self, row: Mapping[str, Any], place: str) -> dict[str, Any]:
        """A row as it is stored -> image, numbers and text.

        Args:
            row: of ``stream``.
            place: what it is called in messages.

        Raises:
            UnreadableImageError: if an image of it cannot be decoded.
        """
        found: dict[str, Any] = {}
        for name, there in self._there.items():
            value = row[there]
            pictured = name == "image" or (isinstance(value, Mapping) and value.keys() == {"bytes", "path"})
            found[name] = self._decoder.read(_content(value, place), name, place) if pictured else value
            if value is None or isinstance(found[name], (Mapping, bytes)):
                raise UserError(f"columns.{name}: {place} has {value!r}, expected an image, a number or text")
        return found

    def fingerprint(self) -> Mapping[str, Entries]:
        """Rows with the sizes of their images; of a stream its name, split, revision and number of rows."""
        if self.streamed:
            return {"stream": [(f"{self.path} {self._split} {self._revision or ''}", self._count)]}
        return {"rows": ((name, size or "gone") for name, (_, size) in zip(self.names, self._files, strict=True))}

    def _undecoded(self, data: Any) -> Any:
        """The columns that are asked for, images as their bytes."""
        import datasets

        features = data.features
        if features is None:
            raise UserError(f"path={self.path!r}: a stream that does not say which columns it has")
        for name, there in self._there.items():
            if there not in features:
                option = "image" if name == "image" else f"columns.{name}"
                have = f", only {', '.join(features)}"
                raise UserError(f"{option}={there!r}: no such column{suggest(there, features) or have}")
        if not isinstance(features[self._there["image"]], datasets.Image):
            kind = features[self._there["image"]]
            raise UserError(f"image={self._there['image']!r}: expected a column of images, it is {kind}")
        data = data.select_columns(list(dict.fromkeys(self._there.values())))
        for there in set(self._there.values()):
            if isinstance(features[there], datasets.Image):
                data = data.cast_column(there, datasets.Image(decode=False))
        return data

    def _said(self) -> int:
        known = (self._data.info.splits or {}).get(self._split)
        if known is None or not known.num_examples:
            raise UserError(f"path={self.path!r}: this stream does not say how many rows it has: set rows")
        return int(known.num_examples)


def _opened(path: str, split: str, config: str | None, revision: str | None, streaming: bool) -> Any:
    try:
        import datasets
    except ImportError:
        raise UserError("the data source huggingface needs the package datasets: pip install 'smalti[data]'") from None
    folder = Path(path).expanduser()
    saved = any((folder / name).is_file() for name in SAVED)
    datasets.disable_progress_bars()
    try:
        if not saved:
            name = str(folder) if folder.is_dir() else path
            return datasets.load_dataset(name, config, split=split, revision=revision, streaming=streaming)
        found = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises whatever its readers and the network raise
        raise UserError(f"path={path!r}, split={split!r}: {explain(error)}") from error
    if isinstance(found, Mapping):
        if split not in found:
            raise UserError(f"split={split!r}: {path} has {', '.join(found)}{suggest(split, found)}")
        found = found[split]
    return found.to_iterable_dataset() if streaming else found.flatten_indices() if found._indices else found


def _content(value: Any, place: str) -> bytes | Path:
    stored = value if isinstance(value, Mapping) else {}
    content: bytes | None = stored.get("bytes")
    if content is None and not stored.get("path"):
        raise UnreadableImageError(f"{place}: no image")
    return Path(stored["path"]) if content is None else content


def _files_of(data: Any, column: str) -> list[tuple[str | None, int]]:
    """Path and size in bytes of each image, read from the table without its bytes."""
    import pyarrow.compute as pc

    found: list[tuple[str | None, int]] = []
    for chunk in data.data.table.column(column).chunks:
        sizes = pc.binary_length(pc.struct_field(chunk, "bytes")).to_pylist()
        paths = pc.struct_field(chunk, "path").to_pylist()
        found += [(path, size or _size(path)) for path, size in zip(paths, sizes, strict=True)]
    return found


def _size(path: str | None) -> int:
    try:
        return os.stat(path).st_size if path else 0
    except OSError:
        return 0


def _names(files: Sequence[tuple[str | None, int]]) -> tuple[str, ...]:
    """File names without the folder they share, where each row has its own; else numbers."""
    paths = [path for path, _ in files if path]
    if len(set(paths)) < len(files):
        return tuple(f"row {number}" for number in range(len(files)))
    if len({os.path.isabs(path) for path in paths}) > 1:
        return tuple(paths)
    shared = os.path.commonpath([os.path.dirname(path) for path in paths])
    return tuple(os.path.relpath(path, shared or ".") for path in paths)
