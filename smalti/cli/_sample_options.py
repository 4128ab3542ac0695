"""Options of ``smalti sample``: where images go, which they are, and how models of tokens draw."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from smalti.cli._options import LARGEST_SEED, finite, whole_number

BATCH = 64

Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="One picture of all images (.png), or an array (.npz).", show_default=False),
]
Npz = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Also write an array (.npz), beside a picture in --out.")
]
Folder = Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also write each image as a .png in this folder.")]
Count = Annotated[int, whole_number("Number of images; with --interpolate, of strips.")]
Seed = Annotated[int, whole_number("Seed of the first image; image i uses seed + i.", least=0, limit=LARGEST_SEED)]
Classes = Annotated[
    str | None, typer.Option(metavar="LIST", help="Classes to sample in turn: 0,1,2 or 0-9.", show_default="all")
]
Label = Annotated[int | None, whole_number("One class for all images.", least=0)]
Together = Annotated[int, whole_number("Images per batch; the images do not depend on it.")]
Columns = Annotated[int | None, whole_number("Images per row of the picture.")]
Force = Annotated[bool, typer.Option("--force", help="Replace existing files.")]

Truncation = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        callback=finite,
        metavar="NUMBER",
        help="GANs: truncate latents towards their mean: below 1, less variety and higher quality.",
        show_default="1",
    ),
]
Interpolate = Annotated[int | None, whole_number("GANs: strips of N images that blend into the next sample.", least=2)]

Guidance = Annotated[
    str | None,
    typer.Option(
        metavar="SCALE",
        help="Token models: scale of classifier-free guidance, or one per codebook: visual=2,semantic=1.5.",
        show_default="1, none",
    ),
]
GuidanceSchedule = Annotated[
    Literal["constant", "linear", "cosine"] | None,
    typer.Option(
        help="Token models: how guidance grows from 1 to its scale over the positions.", show_default="constant"
    ),
]
GuidanceInterval = Annotated[
    str | None, typer.Option(metavar="FIRST,LAST", help="Token models: guide only these positions.", show_default="all")
]
Temperature = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        callback=finite,
        metavar="NUMBER",
        help="Token models: softmax temperature; 0 takes the most likely code.",
        show_default="1",
    ),
]
TopK = Annotated[
    int | None,
    whole_number("Token models: sample from the N most likely codes; 0: from all.", least=0, show_default="0"),
]
TopP = Annotated[
    float | None,
    typer.Option(
        max=1.0,
        callback=finite,
        metavar="NUMBER",
        help="Token models: sample from the most likely codes of this total probability.",
        show_default="1",
    ),
]
TokenizerPath = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Token models: path of the tokenizer, if it has moved.")
]
