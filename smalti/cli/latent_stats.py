"""``smalti latent-stats``: what a generator of latents should divide by."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import Device, TrustCode, fitting, images_for, open_model
from smalti.writing import to_json


def latent_stats(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A saved model or a run folder.", show_default=False)],
    data: Annotated[Path, typer.Option(help="Folder of images, searched to any depth.", show_default=False)],
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Resize to cover SIZE pixels and take the middle; else images as they are."),
    ] = None,
    batches: Annotated[int | None, typer.Option(min=1, help="Measure no more batches.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images of one size that are encoded together.")] = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure, and leave the model's file alone.")] = False,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure shift and scale of a model's latents and store them with it.

    Per channel, over a folder of images: scaled = (latent - shift) * scale has mean 0 and deviation 1. They are written
    to the model's config.json as its option `latents`, and go with it to diffusers.

    Example: smalti latent-stats models/sd-vae --data photos --size 256
    """
    from smalti.data.loader import evaluation_batches
    from smalti.data.transforms import Transform
    from smalti.interop.opening import our_source
    from smalti.metrics._latents import latent_statistics
    from smalti.models._pretrained import CONFIG, is_saved_model, read_config, set_options
    from smalti.registry import UserError

    folder = Path(our_source(model))
    if not dry_run:
        if not is_saved_model(folder):
            raise UserError(f"{model}: no model of smalti, which could hold them; `smalti convert` makes one of it")
        read_config(folder / CONFIG, trust_code=trust_code)
    network = open_model(str(model), device, trust_code)
    source = images_for(network, data, reading_of(max_pixels, value_range, background))
    transform = Transform(size=size, crop="adm_center") if size else Transform()
    found = latent_statistics(
        network, islice(fitting(evaluation_batches(source, transform, batch_size), source, network.factor), batches)
    )
    if not dry_run:
        set_options(folder, latents=found.config())
    if as_json:
        overall = {"scale_factor": 1.0 / found.overall, "images": found.images}
        typer.echo(to_json({**found.config(), **overall}))
        return
    for channel, (mean, std) in enumerate(zip(found.mean.tolist(), found.std.tolist(), strict=True)):
        typer.echo(f"channel {channel}: shift {mean:.5f}, scale {1.0 / std:.5f}")
    typer.echo(f"{found.images} images; one scale for all: {1.0 / found.overall:.5f}")
    if not dry_run:
        typer.echo(f"-> {folder / CONFIG}")
