"""What sources of stored images share: the options of reading, and an image of any column by them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from smalti.data import MASK_COLUMNS, UnreadableImageError
from smalti.data._decoding import Mode, Reading, read_image, read_size
from smalti.data._depth import File
from smalti.registry import UserError

MODES: dict[int, Mode] = {1: "L", 3: "RGB", 4: "RGBA"}
RESERVED = ("image", "index", "position")


class Decoder:
    """Reads images by a source's options.

    Args:
        image_channels: 1 (grey), 3 (RGB) or 4 (RGBA), of the column ``image``; others are masks or RGB.
        reading: by which options files are read.

    Raises:
        ValueError: if the options contradict each other.
    """

    def __init__(self, image_channels: int, reading: Reading) -> None:
        if image_channels not in MODES:
            raise ValueError(f"image_channels={image_channels!r}: expected 1, 3 or 4")
        if image_channels == 4 and reading.colour is not None:
            text = f"background={reading.background!r}"
            raise ValueError(f"{text}: expected 'drop' with image_channels=4, which keeps alpha")
        self.image_channels, self.reading = image_channels, reading

    def reading_of(self, column: str) -> Reading:
        """How the files of a column are read: masks are numbers, not colours."""
        return Reading(max_pixels=self.reading.max_pixels) if column in MASK_COLUMNS else self.reading

    def read(self, file: File, column: str, place: str = "") -> Any:
        """The Pillow image of a column.

        Args:
            file: a path, or the content of a file.
            column: ``image``, or another column.
            place: what it is called in messages; its path if none is given.

        Raises:
            UnreadableImageError: if it cannot be decoded.
            UserError: if the file system fails.
        """
        mode = MODES[self.image_channels] if column == "image" else "L" if column in MASK_COLUMNS else "RGB"
        named = place or str(file if isinstance(file, Path) else "an image")
        with _told_of(named):
            return read_image(file, mode, self.reading_of(column))

    def size(self, path: Path) -> tuple[int, int]:
        """Height and width of an image of the column ``image``, from its header where that is enough.

        Raises:
            UnreadableImageError: if it is none.
            UserError: if the file system fails.
        """
        with _told_of(str(path)):
            return read_size(path, self.reading)


@contextmanager
def _told_of(place: str) -> Iterator[None]:
    """Within, what goes wrong is of this file."""
    try:
        yield
    except ValueError as error:
        raise UnreadableImageError(f"{place}: {error}") from error
    except OSError as error:
        raise UserError(f"{place}: {error.strerror or error}") from error
