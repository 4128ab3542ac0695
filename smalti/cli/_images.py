"""How verbs read image files: what is not decoded, what white is, and what shows through."""

from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._options import whole_number
from smalti.registry import UserError

if TYPE_CHECKING:
    from smalti.data._decoding import Reading

MaxPixels = Annotated[
    int | None,
    whole_number("Do not decode images with more pixels than N.", limit=2**40, show_default="100 megapixels"),
]
ValueRange = Annotated[
    str,
    typer.Option(
        "--value-range", metavar="WHITE", help="White level of 16-bit images: full (65535), or e.g. 4095 for 12 bits."
    ),
]
Background = Annotated[
    str,
    typer.Option(
        "--background", metavar="COLOUR", help="Behind transparent pixels: white, black or R,G,B; drop ignores alpha."
    ),
]


def reading_of(max_pixels: int | None, value_range: str, background: str) -> "Reading":
    """The options of a verb as one object.

    Raises:
        UserError: for a range or a background that is none.
    """
    from smalti.data._decoding import MAX_PIXELS, Reading

    if value_range != "full" and not (value_range.isascii() and value_range.isdigit() and len(value_range) < 20):
        raise UserError(f"--value-range {value_range}: expected full or a whole number >= 1")
    try:
        return Reading(
            max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
            value_range="full" if value_range == "full" else int(value_range),
            background=background,
        )
    except ValueError as error:
        raise UserError(f"--{str(error).replace('_', '-', 1)}") from error
