"""``smalti latent-stats``: what a generator of latents should divide by."""

from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from smalti.cli._images import Background, MaxPixels, ValueRange, reading_of
from smalti.cli._model import ModelPath, TrustCode, batches_of, encodable, open_model
from smalti.cli._options import BatchSize, Device, Size, whole_number
from smalti.writing import to_json


def latent_stats(
    model: ModelPath,
    data: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of images, with its subfolders.", show_default=False)
    ],
    size: Size = None,
    batches: Annotated[int | None, whole_number("Measure N batches at most.", show_default="all images")] = None,
    batch_size: BatchSize = 8,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure without changing the model.")] = False,
    max_pixels: MaxPixels = None,
    value_range: ValueRange = "full",
    background: Background = "drop",
    device: Device = "auto",
    trust_code: TrustCode = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Measure and store the shift and scale of a model's latents.

    (latent - shift) * scale has mean 0 and standard deviation 1 in each channel, over a folder of images. The values
    are stored in the model's config.json as the option `latents`, and are exported to diffusers.

    Example: smalti latent-stats models/sd-vae --data photos --size 256
    """
    from smalti.interop.opening import our_source
    from smalti.metrics._latents import latent_statistics
    from smalti.models._checkpoint import find_checkpoint
    from smalti.models._pretrained import CONFIG, is_saved_model, read_config, set_options
    from smalti.registry import UserError

    folder = Path(our_source(model))
    if not dry_run:
        if find_checkpoint(model) is not None:
            raise UserError(f"{model}: a checkpoint cannot store them: `smalti convert {model} DIR`, or --dry-run")
        if not is_saved_model(folder):
            raise UserError(f"{model}: not a saved model of smalti, which could store them: `smalti convert` makes one")
        read_config(folder / CONFIG, trust_code=trust_code)
    network = open_model(model, device, trust_code)
    source, found_batches = batches_of(network, data, reading_of(max_pixels, value_range, background), size, batch_size)
    found = latent_statistics(network, islice(encodable(found_batches, source, network), batches))
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
