"""``smalti tokenize``: a folder of images -> a token store."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import FLOAT, ModelPath, TrustCode, images_for, open_model
from smalti.cli._options import BatchSize, Device, Size, check_room, whole_number
from smalti.registry import UserError

if TYPE_CHECKING:
    from smalti.data import ImageSource
    from smalti.data._decoding import Reading
    from smalti.models.autoencoder import Autoencoder
    from smalti.tokenizing.job import Job

Views = Literal["none", "flip", "ten-crop"]

Data = Annotated[
    str,
    typer.Option(
        metavar="FOLDER",
        help="Folder of images, with its subfolders; or a data source as in a recipe, such as '{type: digits}'.",
        show_default=False,
    ),
]
Table = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="CSV file with a column `file`; its other columns (label, text, ...) are stored."
    ),
]
ViewsOfEach = Annotated[
    Views, typer.Option(help="Versions of each image to store: itself, also mirrored, or ten crops.")
]
CropRatio = Annotated[
    list[float] | None,
    typer.Option(
        metavar="NUMBER",
        help="With --views ten-crop: resize to size x NUMBER first. Repeatable.",
        show_default="1.1",
    ),
]
Engine = Annotated[
    Literal["plain", "ray"],
    typer.Option(help="plain: this process, or those of torchrun; ray: actors of Ray Data."),
]
Actors = Annotated[
    int | None,
    whole_number("With --engine ray: number of actors, each with a copy of the model.", show_default="1"),
]


def tokenize(
    model: ModelPath,
    data: Data,
    out: Annotated[Path, typer.Option(metavar="STORE", help="The folder to write.", show_default=False)],
    table: Table = None,
    views: ViewsOfEach = "none",
    crop_ratio: CropRatio = None,
    size: Size = None,
    batch_size: BatchSize = 8,
    shard_images: Annotated[int, whole_number("Images per shard, which is what --resume may have to repeat.")] = 1024,
    bits: Annotated[bool, typer.Option("--bits", help="Pack tokens into ceil(log2 K) bits each.")] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Models without tokens: store mean and log-variance as float16.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished store.")] = False,
    engine: Engine = "plain",
    actors: Actors = None,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
) -> None:
    """Encode a data set to a token store, to train a generator on.

    A token store is a folder of memory-mapped shards with the tokens of every image; for a model without tokens, the
    mean and log-variance. Under torchrun each process writes its share. --resume continues an interrupted store; the
    files are the same as without the interruption. Without --size, the height and width of every image must be
    divisible by the model's factor.

    Example: smalti tokenize runs/quickstart --data photos --out tokens --size 256 --views flip
    """
    from smalti.cli._ranks import device_of_rank, ranks
    from smalti.tokenizing.framing import Framing

    framing = Framing(size=size, views=views, crop_ratios=tuple(crop_ratio or ()))
    if actors is not None and engine != "ray":
        raise UserError(f"--actors {actors}: needs --engine ray; the plain engine uses the processes of torchrun")
    reading = reading_of(max_pixels, value_range, background)
    with ranks() as rank:
        tokenizer = open_model(model, str(device_of_rank(device)), trust_code)
        source = _source(tokenizer, data, table, reading, trust_code)
        job = _job(tokenizer, model, source, data, framing, batch_size, shard_images, bits, half)
        if engine == "ray":
            from smalti.tokenizing.cluster import tokenize_on_ray

            store = tokenize_on_ray(job, out, actors or 1, resume=resume, progress=_progress(rank))
        else:
            from smalti.tokenizing.passing import tokenize as tokenized

            found = tokenized(job, out, resume=resume, progress=_progress(rank))
            if found is None:
                return
            store = found
    left_out = f", {store.description.left_out} could not be read" if store.description.left_out else ""
    several = f", {len(store.views)} views each" if len(store.views) > 1 else ""
    typer.echo(f"{len(store)} images{several}{left_out} -> {out}")


def _source(model: "Autoencoder", data: str, table: Path | None, reading: "Reading", trust_code: bool) -> "ImageSource":
    """A folder of images, or the source that a flow mapping describes."""
    if not data.lstrip().startswith("{"):
        return images_for(model.image_channels, Path(data), reading, table)
    if table is not None:
        raise UserError(f"--table {table}: of a folder of images; a source of its own has its table in --data")
    return described_source(data, model.image_channels, trust_code)


def described_source(text: str, channels: int, trust_code: bool) -> "ImageSource":
    """The data source that YAML such as ``{type: digits, part: train}`` describes.

    Raises:
        UserError: if it describes none, its items are no images, or have other channels than the model takes.
    """
    from smalti.config import build, read_yaml
    from smalti.data import ImageSource

    kind: Any = ImageSource
    source: Any = build(read_yaml(text, "--data"), kind, trust_code=trust_code)
    if getattr(source, "streamed", False):
        raise UserError(f"--data {text}: a streamed data set cannot be tokenized: shards need random access")
    given = getattr(source, "image_channels", channels)
    if given != channels:
        images = f"images of {given} channels" if given else "no images"
        raise UserError(f"--data {text}: {images}: the model takes images of {channels}")
    found: ImageSource = source
    return found


def _job(
    model: "Autoencoder", path: str, source: "ImageSource", data: str, framing: Any, batch_size: int,
    shard_images: int, bits: bool, half: bool,
) -> "Job":  # fmt: skip
    from smalti.tokenizing.job import Job

    if framing.size:
        needed = min(batch_size, len(source) * len(framing.names)) * model.image_channels * framing.size**2 * FLOAT
        check_room(needed, f"a batch of images of {framing.size} pixels", "--size or --batch-size")
    return Job(
        model=model,
        path=path,
        source=source,
        data=data,
        framing=framing,
        batch_size=batch_size,
        shard_images=shard_images,
        bits=bits,
        half=half,
    )


def _progress(rank: int) -> Any:
    """A line on a terminal that tells images of this process and how long it will take."""
    import sys
    import time

    began = time.perf_counter()

    def tell(done: int, of: int) -> None:
        if rank == 0 and sys.stderr.isatty():
            seconds = time.perf_counter() - began
            left, end = seconds / max(done, 1) * (of - done), "\n" if done >= of else ""
            rate = f"{done / max(seconds, 1e-9):,.1f} images/s"
            typer.echo(f"\r{done} of {of} images, {rate}, {left:,.0f} s to go \x1b[K{end}", err=True, nl=False)

    return tell
