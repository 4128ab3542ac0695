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
    help="Time parts of smalti against plain PyTorch versions.\n\nExample: smalti bench quantizer",
)

LEAST_SIDE = 32  # of images of KL-f8, whose perceptual network looks at 16 x 16 pixels and more

Repeats = Annotated[int, whole_number("Runs of each variant, in turn; the median counts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@bench.command()
def quantizer(
    tokens: Annotated[int, whole_number("Tokens in a batch.")] = 8192,
    codes: Annotated[int, whole_number("Codes in the codebook.")] = 16384,
    channels: Annotated[int, whole_number("Channels of a code.")] = 8,
    repeats: Repeats = 3,
    compiled: Annotated[bool, typer.Option(help="Also time the torch.compile version (CPU).")] = True,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Time code search with and without the entropy loss.

    Forward and backward. Seconds are processor time of one thread, or CUDA time. RATIO says how many times longer the
    version under AGAINST took.

    Example: smalti bench quantizer --tokens 8192 --codes 16384
    """
    from smalti.bench.measure import show
    from smalti.bench.quantizer import measure_quantizer

    show(*measure_quantizer(tokens, codes, channels, device_of(device), repeats, compiled=compiled), as_json)


@bench.command()
def step(
    recipe: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="Time a step of this recipe, on random images.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="With --recipe: change a value. Repeatable.")
    ] = None,
    channels: Annotated[
        int | None, whole_number("Without --recipe: base width, a multiple of 32.", least=32, show_default="64")
    ] = None,
    size: Annotated[
        int | None,
        whole_number("Side of the images.", least=8, limit=LARGEST_SIDE, show_default="128, or the recipe's"),
    ] = None,
    batch: Annotated[int | None, whole_number("Images per batch.", show_default="2, or the recipe's")] = None,
    repeats: Repeats = 3,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Time a training step.

    Without --recipe: KL-f8 with its discriminator, against latent-diffusion's way of training the same networks (two
    forward and two backward passes). With --recipe: time, memory, floating-point operations, their share of the
    device's peak, and the slowest kernels.

    Example: smalti bench step --recipe tiny-vqgan-f16 --batch 2
    """
    if recipe is None:
        from smalti.bench.measure import show
        from smalti.bench.step import measure_step

        if overrides:
            raise UserError("--set: needs --recipe")
        if size is not None and size < LEAST_SIDE:
            raise UserError(f"--size {size}: expected at least {LEAST_SIDE} without --recipe")
        show(*measure_step(channels or 64, size or 128, batch or 2, device_of(device), repeats), as_json)
        return
    from smalti.bench.recipe import measure_recipe, show_report

    if channels is not None:
        raise UserError("--channels: cannot be used with --recipe; say --set model.encoder.channels=N")
    show_report(measure_recipe(recipe, overrides or [], size, batch, device_of(device), repeats), as_json)


@bench.command()
def data(
    size: Annotated[int, whole_number("Side of the crop.", limit=LARGEST_SIDE)] = 256,
    images: Annotated[int, whole_number("Number of JPEG files to write and read.", most=100_000)] = 48,
    repeats: Repeats = 5,
    as_json: AsJson = False,
) -> None:
    """Time loading of JPEGs of 500 x 375 pixels.

    Example: smalti bench data --size 256
    """
    from smalti.bench.data import measure_data
    from smalti.bench.measure import show

    show(*measure_data(size, images, repeats), as_json)


@bench.command()
def sample(
    width: Annotated[int, whole_number("Width of the model, a multiple of 64.", least=64)] = 384,
    depth: Annotated[int, whole_number("Transformer blocks of the trunk; the head has 2.")] = 6,
    codes: Annotated[int, whole_number("Codes in each codebook.")] = 16384,
    codebooks: Annotated[int, whole_number("Number of codebooks.")] = 3,
    side: Annotated[int, whole_number("Side of the token grid.", limit=LARGEST_SIDE)] = 16,
    batch: Annotated[int, whole_number("Images per batch; guidance doubles it.", most=1000)] = 4,
    repeats: Repeats = 3,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Time sampling from a FAR with guidance 2.

    In float32 and bfloat16, against a plain sampler in the style of FQGAN's: masked key-value caches of full length,
    and a new cache of the head for every position.

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
        str, typer.Argument(metavar="MODEL", help="A run folder, or a recipe (with random weights).")
    ] = "llamagen-f16",
    size: Annotated[int, whole_number("Side of the images.", limit=LARGEST_SIDE)] = 128,
    batch: Annotated[int, whole_number("Images per batch.")] = 2,
    repeats: Repeats = 3,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Time encoding and decoding, in float32 and bfloat16.

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
