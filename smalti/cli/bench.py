"""``smalti bench``: what ours costs beside the textbook form, measured in one process."""

from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._model import TrustCode
from smalti.registry import UserError

if TYPE_CHECKING:
    import torch

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Measure parts against their textbook form.\n\nExample: smalti bench quantizer",
)

Repeats = Annotated[int, typer.Option(min=1, help="Times that each variant runs, in turn; the median counts.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print rows as JSON, for programs.")]
Device = Annotated[str, typer.Option(help="cpu, or cuda.")]


def _device(name: str) -> "torch.device":
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return torch.device(name)


@bench.command()
def quantizer(
    tokens: Annotated[int, typer.Option(min=1, help="N, positions of a batch.")] = 8192,
    codes: Annotated[int, typer.Option(min=1, help="K, size of the codebook.")] = 16384,
    channels: Annotated[int, typer.Option(min=1, help="d, width of a code.")] = 8,
    repeats: Repeats = 3,
    compiled: Annotated[bool, typer.Option(help="Also the compiled chunks (CPU).")] = True,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Code search with and without entropy loss, forward and backward.

    Seconds are processor time of one thread, or CUDA time. RATIO is how many times longer AGAINST took.

    Example: smalti bench quantizer --tokens 8192 --codes 16384
    """
    from smalti.cli._bench_quantizer import measure_quantizer
    from smalti.cli._measure import show

    show(*measure_quantizer(tokens, codes, channels, _device(device), repeats, compiled=compiled), as_json)


@bench.command()
def step(
    channels: Annotated[int, typer.Option(min=32, help="Base width; a multiple of 32.")] = 64,
    size: Annotated[int, typer.Option(min=32, help="Side of the images.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Images.")] = 2,
    repeats: Repeats = 3,
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """A training step of KL-f8 with its discriminator.

    Against the schedule of latent-diffusion on the same networks: two forward passes, two traversals.

    Example: smalti bench step --size 128 --batch 2
    """
    from smalti.cli._bench_step import measure_step
    from smalti.cli._measure import show

    show(*measure_step(channels, size, batch, _device(device), repeats), as_json)


@bench.command()
def data(
    size: Annotated[int, typer.Option(min=1, help="Side of the crop.")] = 256,
    images: Annotated[int, typer.Option(min=1, help="JPEG files that are written and read.")] = 48,
    repeats: Repeats = 5,
    as_json: AsJson = False,
) -> None:
    """Decode, crop and batch JPEGs of 500 x 375 pixels.

    Example: smalti bench data --size 256
    """
    from smalti.cli._bench_data import measure_data
    from smalti.cli._measure import show

    show(*measure_data(size, images, repeats), as_json)


@bench.command()
def encode(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A run folder, or a recipe, built with fresh weights.")
    ] = "llamagen-f16",
    size: Annotated[int, typer.Option(min=1, help="Side of the images.")] = 128,
    batch: Annotated[int, typer.Option(min=1, help="Images.")] = 2,
    repeats: Repeats = 3,
    device: Device = "cpu",
    trust_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Encode and decode, in float32 and bfloat16.

    Example: smalti bench encode llamagen-f16 --size 256
    """
    from smalti.cli._bench_data import measure_encode
    from smalti.cli._measure import show

    found = measure_encode(model, size, batch, _device(device), repeats, trust_code=trust_code)
    show(*found, as_json)
