"""``smalti evaluate``: how good tokenizers are on a folder of images, under a protocol."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import FLOAT, TrustCode, images_for
from smalti.cli._options import BatchSize, Device, Size, check_room, whole_number
from smalti.cli._ranks import device_of_rank, ranks
from smalti.registry import UserError
from smalti.writing import to_json

if TYPE_CHECKING:
    from smalti.data._decoding import Reading
    from smalti.evaluation.adapters import Adapter
    from smalti.evaluation.passing import Question
    from smalti.evaluation.protocol import Protocol
    from smalti.evaluation.results import Result

RESULT = "evaluation.json"

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL",
        help="Run folders, saved models, checkpoints of other projects, diffusers folders, Hub repositories; "
        "images:DIR for reconstructions made elsewhere; jpeg:q=50, webp:q=50, png; module:object.",
        show_default=False,
    ),
]
Cache = Annotated[
    bool, typer.Option("--cache/--no-cache", help="Reuse features of the real images between evaluations.")
]
Contents = Annotated[bool, typer.Option("--contents", help="Record a hash of the contents of all image files.")]

DataFolder = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of images, with its subfolders.", show_default=False),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="A name of `smalti protocols list`, NAME@SIZE, or a YAML file.", show_default="whole"
    ),
]
Metrics = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="Comma-separated names.",
        show_default="psnr, ssim, bits_per_pixel and codebook usage",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Write evaluation.json here; for several models, into one subfolder each."),
]
Resume = Annotated[
    bool,
    typer.Option("--resume", help="With --out: skip models whose result of the same protocol is there."),
]
Inception = Annotated[
    str,
    typer.Option(
        metavar="WEIGHTS", help="Inception weights for fid, kid, ...: pretrained (downloaded), a path, or random."
    ),
]


def evaluate(
    models: Models = None,
    data: DataFolder = None,
    protocol: ProtocolName = None,
    metrics: Metrics = None,
    size: Size = None,
    limit: Annotated[int | None, whole_number("Use the first N images only; the result records this.")] = None,
    out: Out = None,
    resume: Resume = False,
    pictures: Annotated[int, whole_number("With --out: save pictures of the N worst images.", least=0, most=1000)] = 4,
    inception: Inception = "pretrained",
    cache: Cache = True,
    contents: Contents = False,
    batch_size: BatchSize = 8,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of results and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, including a row per image.")] = False,
) -> None:
    """Measure reconstruction quality on a folder of images.

    Images whose sides are not divisible by a model's factor are padded, and the reconstruction is cropped. Under
    torchrun each process measures its share of the images.

    Example: smalti evaluate runs/quickstart jpeg:q=50 --data held-out --protocol smalti
    """
    from smalti.evaluation.results import schema as schema_of

    if schema:
        typer.echo(to_json(schema_of()))
        return
    if not models or data is None:
        raise UserError("expected at least one MODEL, and --data FOLDER")
    wanted = metrics.replace(" ", "").split(",") if metrics is not None else []
    reading, under = reading_of(max_pixels, value_range, background), _protocol(protocol, size)
    with ranks() as rank:
        results = []
        for words in models:
            where = _folder(out, words, len(models), models)
            question = _question(words, data, reading, under, device, trust_code)
            question = replace(
                _set(question, wanted, batch_size, limit, where),
                contents=contents,
                weights=inception,
                cache=_cache() if cache else None,
            )
            results.append(_kept(question, where, resume) or _measured(question, where, rank, pictures))
        if rank == 0:
            _show(results, as_json)


def _protocol(name: str | None, size: int | None) -> "Protocol":
    from smalti.evaluation.protocol import protocol_named

    if name is None:
        return protocol_named("whole") if size is None else protocol_named("cover", size)
    return protocol_named(name, size)


def _question(
    words: str, data: Path, reading: "Reading", protocol: "Protocol", device: str, trust_code: bool
) -> "Question":
    """The adapter of some words and the images that it is to be measured on."""
    from smalti.evaluation.opening import IMAGES, open_adapter
    from smalti.evaluation.passing import Question

    place = device_of_rank(device)
    if words.startswith(IMAGES):
        source = images_for(3, data, reading)
        adapter = open_adapter(words, originals=source.names)
    else:
        adapter = open_adapter(words, trust_code=trust_code)
        source = images_for(adapter.image_channels, data, reading)
    return Question(adapter=adapter, source=source, path=str(data), protocol=protocol, device=place)


def _cache() -> Path:
    from smalti.extractors._download import cache_folder

    return cache_folder() / "features"


def _set(question: "Question", metrics: Sequence[str], batch: int, limit: int | None, where: Path | None) -> "Question":
    side = question.protocol.size
    if side:
        together = min(batch, len(question.source))
        needed = together * question.adapter.image_channels * side**2 * FLOAT
        check_room(needed, f"a batch of {together} images of {side} pixels", "--size or --batch-size")
    return replace(question, metrics=metrics, batch_size=batch, limit=limit, partial=where)


def _folder(out: Path | None, words: str, count: int, models: Sequence[str]) -> Path | None:
    """Where the result of one of several models lies: named after it, numbered if two are called alike."""
    if out is None or count == 1:
        return out
    plain = ["-".join(part for part in "".join(c if c.isalnum() else " " for c in name).split()) for name in models]
    index = list(models).index(words)
    twice = plain.count(plain[index]) > 1
    return out / (f"{index}-{plain[index]}" if twice else plain[index])


def _kept(question: "Question", where: Path | None, resume: bool) -> "Result | None":
    """A result that is there already; None if there is none.

    Raises:
        UserError: if one is there and --resume was not said, or it is of another question.
    """
    from smalti.evaluation.results import read_result

    if where is None or not (where / RESULT).exists():
        return None
    if not resume:
        raise UserError(f"{where / RESULT} exists: --resume keeps it, another --out measures anew")
    found = read_result(where / RESULT)
    if found.protocol["hash"] != question.protocol.hash or found.tokenizer["origin"] != question.adapter.origin:
        of = f"{found.tokenizer['name']} under {found.protocol['name']}"
        raise UserError(f"{where / RESULT} is a result of {of}: choose another --out")
    return found


def _measured(question: "Question", where: Path | None, rank: int, pictures: int) -> "Result":
    from smalti.evaluation.passing import measure
    from smalti.evaluation.pictures import save_worst

    result = measure(question, _progress(question.adapter, rank), lambda line: typer.echo(line, err=True))
    for name, reason in result.cautions.items():
        if rank == 0:
            typer.echo(f"{name}: {reason}", err=True)
    if not result.numbers:
        raise UserError("nothing could be measured")
    if where is not None and rank == 0:
        where.mkdir(parents=True, exist_ok=True)
        save_worst(question, result, where, pictures)
        result.write(where / RESULT)
    return result


def _progress(adapter: "Adapter", rank: int) -> Any:
    """A line on a terminal that tells images, seconds and how long it will take."""
    import sys

    def tell(done: int, of: int, seconds: float) -> None:
        if rank == 0 and sys.stderr.isatty():
            left = seconds / max(done, 1) * (of - done)
            end = "\n" if done >= of else ""
            typer.echo(f"\r{adapter.name}: {done} of {of} images, {left:,.0f} s to go \x1b[K{end}", err=True, nl=False)

    return tell


def _show(results: Sequence["Result"], as_json: bool) -> None:
    from smalti.cli._table import print_rows
    from smalti.evaluation.comparison import compared, text

    if as_json:
        typer.echo(to_json([asdict(result) for result in results] if len(results) > 1 else asdict(results[0])))
        return
    if len(results) > 1:
        typer.echo(text(compared(results)))
        return
    [result] = results
    limited = f" of {result.data['images']}" if result.limited else ""
    name = f"{result.protocol['name']} ({result.protocol['hash']})"
    typer.echo(f"{result.samples} images{limited} in {result.seconds:.1f} s under {name}")
    print_rows(result.numbers, result.intervals)
