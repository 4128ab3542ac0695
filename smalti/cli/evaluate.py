"""``smalti evaluate``: how good a model is on a folder of images."""

import time
from pathlib import Path
from typing import Annotated

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import ModelPath, TrustCode, batches_of, open_model
from smalti.cli._options import BatchSize, Device, Size
from smalti.cli._table import print_rows
from smalti.registry import UserError
from smalti.writing import to_json


def evaluate(
    model: ModelPath,
    data: Annotated[Path, typer.Option(help="Folder of images, searched to any depth.", show_default=False)],
    metrics: Annotated[
        str, typer.Option(help="Names, separated by commas. Codebook metrics say nothing of a model without one.")
    ] = "psnr,ssim,codebook_usage,perplexity,bits_per_image",
    size: Size = None,
    batch_size: BatchSize = 8,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with a row for each image.")] = False,
) -> None:
    """Measure a model on a folder of images.

    Sizes that the model's factor does not divide are padded, and the reconstruction is cut back.

    Example: smalti evaluate runs/quickstart --data held-out
    """
    from smalti.metrics import Metric
    from smalti.metrics.evaluation import examine
    from smalti.registry import resolve

    chosen = {name: resolve(name, Metric)() for name in metrics.replace(" ", "").split(",")}
    tokenizer = open_model(model, device, trust_code)
    source, batches = batches_of(tokenizer, data, reading_of(max_pixels, value_range, background), size, batch_size)
    began = time.perf_counter()
    found = examine(tokenizer, batches, chosen, names=source.names)
    seconds = time.perf_counter() - began
    for name, reason in found.left_out.items():
        typer.echo(f"{name}: {reason}", err=True)
    if found.left_out and not found.values:
        raise UserError("nothing could be measured")
    if as_json:
        images = [dict(row) for row in found.images]
        typer.echo(to_json({**found.values, "seconds": seconds, "images": images}))
        return
    typer.echo(f"{len(found.images)} images in {seconds:.1f} s")
    print_rows(found.values)
