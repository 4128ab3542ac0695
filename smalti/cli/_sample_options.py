"""Options of ``smalti sample``: where images go, which they are, and how models of tokens draw."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smalti.cli._options import LARGEST_SEED, finite, whole_number

BATCH = 64

Out = Annotated[
    Path | None, typer.Option(help="A picture (.png), or .npz for all images as numbers.", show_default=False)
]
Npz = Annotated[Path | None, typer.Option(help="All images as numbers, beside a picture in --out.")]
Folder = Annotated[Path | None, typer.Option(help="A folder for a .png of each image.")]
Count = Annotated[int, whole_number("Images; with --interpolate, strips.")]
Seed = Annotated[int, whole_number("Seed of the first image; the next has the next seed.", least=0, most=LARGEST_SEED)]
Classes = Annotated[str | None, typer.Option(help="Classes to make in turn, 0,1,2 or 0-9; without it all of them.")]
Label = Annotated[int | None, whole_number("The one class to make.", least=0)]
Together = Annotated[int, whole_number("Images that are drawn together; it changes none of them.")]
Columns = Annotated[int | None, whole_number("Images in a row of the picture.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what exists.")]

Truncation = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, callback=finite, help="Of GANs: below 1, variety is given for quality."),
]
Interpolate = Annotated[int | None, whole_number("Of GANs: strips of so many steps to the next image.", least=2)]

Guidance = Annotated[
    str | None,
    typer.Option(
        help="Of tokens: above 1, what fits the class better and varies less; visual=2,semantic=1.5 for each codebook.",
    ),
]
GuidanceSchedule = Annotated[
    Literal["constant", "linear", "cosine"] | None,
    typer.Option(help="Of tokens: how guidance grows from 1 over the positions."),
]
GuidanceInterval = Annotated[str | None, typer.Option(help="Of tokens: first and last position that is guided: 0,127.")]
Temperature = Annotated[
    float | None,
    typer.Option(min=0.0, callback=finite, help="Of tokens: of the softmax; 0: the best code."),
]
TopK = Annotated[int | None, whole_number("Of tokens: draw from so many of the best codes; 0: all.", least=0)]
TopP = Annotated[
    float | None,
    typer.Option(max=1.0, callback=finite, help="Of tokens: draw from the best codes of this probability."),
]
TokenizerPath = Annotated[str | None, typer.Option(help="Of tokens: where the tokenizer is, if not where it was.")]
