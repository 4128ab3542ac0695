"""``smalti convert``: checkpoints of other projects, in and out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from smalti.cli._model import TrustCode
from smalti.cli._options import LARGEST_SIDE, finite, whole_number
from smalti.writing import to_json

if TYPE_CHECKING:
    from smalti.interop.converting import Conversion

FORMATS = "smalti, latent-diffusion (also taming, stable-diffusion), llamagen, fqgan, ibq, diffusers, llamagen-gpt, far"

Source = Annotated[
    str,
    typer.Argument(
        metavar="SRC", help="A checkpoint (file or folder), a saved model or a Hub repository.", show_default=False
    ),
]
Target = Annotated[Path, typer.Argument(metavar="DST", help="The file or folder to write.", show_default=False)]
Heads = Annotated[
    int | None,
    whole_number(
        "Attention heads of transformers, which checkpoints do not state.",
        show_default="8 for fqgan, width / 64 for llamagen-gpt and far",
    ),
]


def convert(
    source: Source,
    target: Target,
    source_format: Annotated[str, typer.Option("--from", metavar="FORMAT", help=f"auto, {FORMATS}.")] = "auto",
    target_format: Annotated[
        str, typer.Option("--to", metavar="FORMAT", help="As for --from, without auto.")
    ] = "smalti",
    weights: Annotated[
        Literal["auto", "raw", "ema"],
        typer.Option(help="Which weights of a training checkpoint; auto: averaged ones (ema) if there are any."),
    ] = "auto",
    keep_discriminator: Annotated[
        bool, typer.Option("--keep-discriminator", help="Also convert the discriminator, for fine-tuning.")
    ] = False,
    heads: Heads = None,
    grid: Annotated[
        int | None,
        whole_number(
            "Token models (llamagen-gpt, far): side of the grid of tokens.", show_default="16", limit=LARGEST_SIDE
        ),
    ] = None,
    scaling_factor: Annotated[
        float | None,
        typer.Option(
            callback=finite,
            metavar="NUMBER",
            help="Scale of the latents to record instead of the file's (latent-diffusion, diffusers).",
            show_default=False,
        ),
    ] = None,
    trust_code: TrustCode = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, for programs.")] = False,
) -> None:
    """Convert checkpoints from and to other projects.

    Every key is translated, or listed with the reason why it is dropped. What was written is read again and compared
    bit by bit. If the original implementation is installed, both networks are run on a random input. If anything
    disagrees, nothing is written.

    Example: smalti convert sd-vae.safetensors models/sd-vae
    """
    from smalti.cli._files import refuse_existing
    from smalti.interop import ImportOptions
    from smalti.interop.converting import convert as run
    from smalti.registry import UserError

    refuse_existing(target, force)
    if scaling_factor is not None and scaling_factor <= 0.0:
        raise UserError(f"--scaling-factor {scaling_factor}: expected a positive number")
    done = run(
        source,
        target,
        source_format=source_format,
        target_format=target_format,
        options=ImportOptions(weights=weights, heads=heads, grid=grid, scaling_factor=scaling_factor),
        keep_discriminator=keep_discriminator,
        trust_code=trust_code,
    )
    typer.echo(to_json(_plain(done)) if as_json else _text(done))


def _plain(done: "Conversion") -> dict[str, object]:
    return {
        "path": str(done.path),
        "source": done.source,
        "target": done.target,
        "weights": done.weights,
        "parameters": done.parameters,
        "tensors": done.tensors,
        "dropped": {reason: list(keys) for reason, keys in done.dropped.items()},
        "notes": list(done.notes),
        "discriminator": done.discriminator,
        "largest_difference": max(check.largest for check in done.checks),
        "checks": {check.against: dict(check.places) for check in done.checks},
    }


def _text(done: "Conversion") -> str:
    lines = [
        f"{done.source} -> {done.target}, {done.weights} weights",
        f"{done.tensors} tensors, {done.parameters:,} parameters, every tensor bit-equal",
    ]
    for reason, keys in done.dropped.items():
        shown = keys[0] if len(keys) == 1 else f"{keys[0]}, ... ({len(keys)} keys)"
        lines.append(f"dropped: {shown}: {reason}")
    lines += [f"note: {note}" for note in done.notes]
    for check in done.checks:
        places = ", ".join(f"{name} {value:.1e}" for name, value in check.places.items())
        lines.append(f"{check.inputs}, {check.against} largest difference {check.largest:.1e} ({places})")
    if done.discriminator:
        lines.append(f"discriminator: {done.path / 'discriminator'}")
    return "\n".join([*lines, f"-> {done.path}"])
