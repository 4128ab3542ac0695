"""``smalti bench``: what ours costs beside the textbook form, measured in one process."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._model import TrustCode, open_model
from smalti.cli._options import LARGEST_SIDE, Device, device_of, whole_number
from smalti.registry import UserError

if TYPE_CHECKING:
    from smalti.models.autoencoder import Autoencoder

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure parts against their textbook form.\n\nExample: smalti bench quantizer",
)

LEAST_SIDE = 32  # of images of KL-f8, whose perceptual network looks at 16 x 16 pixels and more

Repeats = Annotated[int, whole_number("Times that each variant runs, in turn; the median counts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print rows as JSON, for programs.")]


@bench.command()
def quantizer(
    tokens: Annotated[int, whole_number("N, positions of a batch.")] = 8192,
    codes: Annotated[int, whole_number("K, size of the codebook.")] = 16384,
    channels: Annotated[int, whole_number("d, width of a code.")] = 8,
    repeats: Repeats = 3,
    compiled: Annotated[bool, typer.Option(help="Also the compiled chunks (CPU).")] = True,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Code search with and without entropy loss, forward and backward.

    Seconds are processor time of one thread, or CUDA time. RATIO is how many times longer AGAINST took.

    Example: smalti bench quantizer --tokens 8192 --codes 16384
    """
    from smalti.bench.measure import show
    from smalti.bench.quantizer import measure_quantizer

    show(*measure_quantizer(tokens, codes, channels, device_of(device), repeats, compiled=compiled), as_json)


@bench.command()
def step(
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="A whole step of a recipe, on random images.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With --recipe: replace a value of it.")
    ] = None,
    channels: Annotated[
        int | None, whole_number("Without --recipe: base width, a multiple of 32. [default: 64]", least=32)
    ] = None,
    size: Annotated[
        int | None, whole_number("Side of the images. [default: 128, or the recipe's]", least=8, most=LARGEST_SIDE)
    ] = None,
    batch: Annotated[int | None, whole_number("Images. [default: 2, or the recipe's]")] = None,
    repeats: Repeats = 3,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """A training step of KL-f8 with its discriminator, or with --recipe of any recipe.

    KL-f8 is compared with the schedule of latent-diffusion on the same networks: two forward passes, two traversals. Of
    a recipe time, memory, floating-point operations, their share of what the device can do, and the longest kernels
    are told.

    Example: smalti bench step --recipe tiny-vqgan-f16 --batch 2
    """
    if recipe is None:
        from smalti.bench.measure import show
        from smalti.bench.step import measure_step

        if overrides:
            raise UserError("--set: goes with --recipe")
        if size is not None and size < LEAST_SIDE:
            raise UserError(f"--size {size}: expected at least {LEAST_SIDE} without --recipe")
        show(*measure_step(channels or 64, size or 128, batch or 2, device_of(device), repeats), as_json)
        return
    from smalti.bench.recipe import measure_recipe, show_report

    if channels is not None:
        raise UserError("--channels: goes without --recipe; say --set model.encoder.channels=N")
    show_report(measure_recipe(recipe, overrides or [], size, batch, device_of(device), repeats), as_json)


@bench.command()
def data(
    size: Annotated[int, whole_number("Side of the crop.", most=LARGEST_SIDE)] = 256,
    images: Annotated[int, whole_number("JPEG files that are written and read.", most=100_000)] = 48,
    repeats: Repeats = 5,
    as_json: AsJson = False,
) -> None:
    """Decode, crop and batch JPEGs of 500 x 375 pixels.

    Example: smalti bench data --size 256
    """
    from smalti.bench.data import measure_data
    from smalti.bench.measure import show

    show(*measure_data(size, images, repeats), as_json)


@bench.command()
def sample(
    width: Annotated[int, whole_number("Of the model; its heads have 64 channels.", least=64)] = 384,
    depth: Annotated[int, whole_number("Blocks of its trunk; its head has 2.")] = 6,
    codes: Annotated[int, whole_number("K, size of each codebook.")] = 16384,
    codebooks: Annotated[int, whole_number("Codebooks of a position.")] = 3,
    side: Annotated[int, whole_number("Of the grid of positions.", most=LARGEST_SIDE)] = 16,
    batch: Annotated[int, whole_number("Images; guidance doubles them.", most=1000)] = 4,
    repeats: Repeats = 3,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Draw the best tokens of a FAR with guidance 2, in float32 and bfloat16.

    The textbook is a sampler in the manner of FQGAN's: masked caches of full length, those of its head made anew for
    every position.

    Example: smalti bench sample --side 8
    """
    from smalti.bench.measure import show
    from smalti.bench.sample import measure_sample

    if width % 64:
        raise UserError(f"--width {width}: expected a multiple of 64")
    show(*measure_sample(width, depth, codes, codebooks, side, batch, device_of(device), repeats), as_json)


@bench.command()
def encode(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run folder, or a recipe, built with fresh weights.")
    ] = "llamagen-f16",
    size: Annotated[int, whole_number("Side of the images.", most=LARGEST_SIDE)] = 128,
    batch: Annotated[int, whole_number("Images.")] = 2,
    repeats: Repeats = 3,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Encode and decode, in float32 and bfloat16.

    Example: smalti bench encode llamagen-f16 --size 256
    """
    from smalti.bench.data import measure_encode
    from smalti.bench.measure import show

    where = device_of(device)
    show(*measure_encode(_tokenizer(model, str(where), trust_code), size, batch, where, repeats), as_json)


def _tokenizer(model: str, device: str, trust_code: bool) -> "Autoencoder":
    """A saved model, or that of a recipe with fresh weights."""
    import torch

    import smalti
    from smalti.models._checkpoint import find_checkpoint

    if Path(model).is_dir() or find_checkpoint(model) is not None:
        return open_model(model, device, trust_code)
    torch.manual_seed(0)
    made: Autoencoder = smalti.build(model, trust_code=trust_code).to(device).eval()
    return made
