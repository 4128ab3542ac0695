"""The pictures of a run as a page holds them: sheets cut into originals and reconstructions, each of them once."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from smalti.pages import data_uri
from smalti.report.run import Run

LAYOUT = "smalti:grid"  # as the pictures of a run say how they are divided
STEPS = 6  # at most, the last one among them
EARLY = 4  # pairs that are shown of earlier steps
EXACT = 1_500_000  # pixels that are kept exactly; of more, pictures are compressed
QUALITY = 90
_GAP, _COLUMNS, _MOST_ROWS = 4, (4, 2), 16  # of runs that did not say

Tile = tuple[int, int, int, int]


@dataclass
class Album:
    """Pictures by number, each once however often it is shown."""

    pictures: list[Image.Image] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, picture: Image.Image) -> int:
        """The number of a picture."""
        key = hashlib.sha256(repr(picture.size).encode() + picture.tobytes()).hexdigest()
        if key not in self.numbers:
            self.numbers[key] = len(self.pictures)
            self.pictures.append(picture)
        return self.numbers[key]

    @property
    def is_exact(self) -> bool:
        """Whether nothing is lost by the way in which they are kept."""
        return sum(picture.width * picture.height for picture in self.pictures) <= EXACT

    def addresses(self) -> Iterator[str]:
        """The pictures as addresses that hold them."""
        options: dict[str, Any] = {"lossless": True} if self.is_exact else {"quality": QUALITY}
        for picture in self.pictures:
            content = io.BytesIO()
            picture.save(content, "webp", method=3, **options)
            yield data_uri(content.getvalue(), ".webp")


def viewer(run: Run, pairs: bool) -> dict[str, Any]:
    """What the viewer of a page shows: ``images``, and of each of ``steps`` the numbers of its ``pairs`` or ``sheet``.

    Args:
        run: whose pictures they are.
        pairs: whether sheets that do not say so hold originals and reconstructions.
    """
    album, steps, unread = Album(), [], []
    for path in course(run.samples):
        try:
            with Image.open(path) as opened:
                sheet = opened.convert("RGB")
                tiles = list(_tiles(sheet, str(opened.info.get(LAYOUT, "")), pairs))
        except (OSError, ValueError):
            unread.append(path.name)
            continue
        shown = tiles if path == run.samples[-1] else tiles[: 2 * EARLY]
        numbers = [album.add(sheet.crop(tile)) for tile in shown]
        step: dict[str, Any] = {"label": f"{int(path.stem):,}" if path.stem.isdigit() else path.stem}
        if numbers:
            step["pairs"] = [numbers[index : index + 2] for index in range(0, len(numbers), 2)]
        else:
            step["sheet"] = album.add(sheet)
        steps.append(step)
    return {"steps": steps, "images": list(album.addresses()), "exact": album.is_exact, "unread": unread}


def course(samples: Sequence[Path]) -> list[Path]:
    """At most ``STEPS`` pictures, evenly over the run, the first and the last one among them.

    >>> [path.stem for path in course([Path(f"{step}.png") for step in range(11)])]
    ['0', '2', '4', '6', '8', '10']
    """
    if len(samples) <= STEPS:
        return list(samples)
    return [samples[round(index * (len(samples) - 1) / (STEPS - 1))] for index in range(STEPS)]


def _tiles(sheet: Image.Image, layout: str, pairs: bool) -> Iterator[Tile]:
    """Boxes of originals and reconstructions in turn; none of a sheet that has no such pairs."""
    words = layout.split()
    if words:
        if words[3:] != ["pairs"]:
            return
        count, columns, gap = map(int, words[:3])
        rows = -(-count // columns)
    else:
        found = _guessed(sheet) if pairs else None
        if found is None:
            return
        columns, rows, count, gap = *found, found[0] * found[1], _GAP
    width, height = (sheet.width + gap) // columns, (sheet.height + gap) // rows
    boxes = [(x * width, y * height, (x + 1) * width - gap, (y + 1) * height - gap) for y, x in _places(rows, columns)]
    for first, second in zip(boxes[0:count:2], boxes[1:count:2], strict=True):
        if words or not (_is_white(sheet, first) and _is_white(sheet, second)):
            yield from (first, second)


def _places(rows: int, columns: int) -> Iterator[tuple[int, int]]:
    return ((row, column) for row in range(rows) for column in range(columns))


def _guessed(sheet: Image.Image) -> tuple[int, int] | None:
    """Columns and rows of a sheet of pairs, by the white lines between them."""
    for columns in _COLUMNS:
        if _is_ruled(sheet, columns, 0):
            rows = (number for number in range(_MOST_ROWS, 0, -1) if _is_ruled(sheet, number, 1))
            return columns, next(rows, 1)
    return None


def _is_ruled(sheet: Image.Image, parts: int, axis: int) -> bool:
    """Whether white lines divide the sheet into equal parts along an axis."""
    side = sheet.size[axis]
    if (side + _GAP) % parts:
        return False
    part = (side + _GAP) // parts
    ends = [number * part for number in range(1, parts)]
    boxes = [(e - _GAP, 0, e, sheet.height) if axis == 0 else (0, e - _GAP, sheet.width, e) for e in ends]
    return part > 2 * _GAP and all(_is_white(sheet, box) for box in boxes)


def _is_white(sheet: Image.Image, box: Tile) -> bool:
    return all(low == 255 for low, _ in sheet.crop(box).getextrema())  # type: ignore[misc]
