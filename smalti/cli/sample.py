"""``smalti sample``: a generator -> pictures, strips between them, or a file of many images."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smalti.cli._model import FLOAT, ModelPath, TrustCode, open_generator
from smalti.cli._options import LARGEST_SEED, Device, check_room, finite, whole_number
from smalti.registry import UserError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from smalti.models._generator import Generator

BATCH = 64


def sample(
    model: ModelPath,
    out: Annotated[Path, typer.Option(help="A picture (.png), or .npz for all images as numbers.", show_default=False)],
    count: Annotated[int, whole_number("Images; with --interpolate, strips.")] = 64,
    seed: Annotated[
        int, whole_number("Seed of the first image; the next has the next seed.", least=0, most=LARGEST_SEED)
    ] = 0,
    truncation: Annotated[
        float, typer.Option(min=0.0, max=1.0, callback=finite, help="Below 1, variety is given for quality.")
    ] = 1.0,
    label: Annotated[int | None, whole_number("The class to make; without it all of them in turn.", least=0)] = None,
    interpolate: Annotated[int | None, whole_number("Strips of so many steps to the next image.", least=2)] = None,
    columns: Annotated[int | None, whole_number("Images in a row of the picture.")] = None,
    device: Device = "auto",
    trust_code: TrustCode = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Make images with a trained generator.

    An image depends on its seed alone, not on how many are made. The .npz holds the array arr_0, uint8 with shape
    (N, H, W, C), as tools that compute FID expect it.

    Example: smalti sample runs/wgan-digits --out digits.png --count 100
    """
    from smalti.cli._files import refuse_existing

    refuse_existing(out, force)
    if out.suffix not in {".png", ".npz"}:
        raise UserError(f"--out {out}: expected a name that ends in .png or .npz")
    generator = open_generator(model, device, trust_code)
    if label is not None and label >= generator.num_classes:
        classes = f"0 to {generator.num_classes - 1}" if generator.num_classes else "none, it has no classes"
        raise UserError(f"--label {label}: expected one of this model's classes ({classes})")
    steps = interpolate or 1
    copies = 2 if out.suffix == ".npz" else 2 * FLOAT
    needed = count * steps * generator.image_channels * math.prod(generator.image_size) * copies
    check_room(needed, f"{count * steps:,} images at once", "--count or --interpolate")
    if out.suffix == ".npz":
        _write_numbers(out, images_of(generator, seed, count, truncation, label, steps), count * steps)
    else:
        wide = columns or (steps if interpolate else _square(count))
        _write_picture(out, images_of(generator, seed, count, truncation, label, steps), wide)
    typer.echo(f"{count * steps} images -> {out}")


def images_of(
    generator: "Generator", seed: int, count: int, truncation: float = 1.0, label: int | None = None, steps: int = 1
) -> "Iterator[Tensor]":
    """Batches of images (n, C, H, W) in [-1, 1], ``count * steps`` in all: image i has seed ``seed + i``.

    With ``steps`` above 1, each is followed by steps towards the next, along the sphere on which noise lies.

    Args:
        generator: in evaluation mode.
        seed: of the first image.
        count: images, or strips.
        truncation: below 1, variety is given for quality.
        label: the class; None: image i has class i modulo their number.
        steps: images of a strip.
    """
    import torch

    place = next(generator.parameters())
    for start in range(0, count * steps, BATCH):
        numbers = range(start, min(start + BATCH, count * steps))
        rows = [_between(seed + n // steps, n % steps / max(steps - 1, 1), generator.latent_size) for n in numbers]
        noise = torch.stack(rows).to(place)
        labels = None
        if generator.num_classes:
            chosen = [(n // steps) % generator.num_classes if label is None else label for n in numbers]
            labels = torch.tensor(chosen, device=place.device)
        with torch.inference_mode():
            yield generator.sample(noise, labels, truncation)


def _between(seed: int, share: float, size: int) -> "Tensor":
    """Noise with shape (size,) at ``share`` of the way from that of ``seed`` to the next one's, along an arc."""
    import torch

    def of(number: int) -> torch.Tensor:
        return torch.randn(size, generator=torch.Generator().manual_seed(number))

    if share == 0.0:
        return of(seed)
    angle = share * math.pi / 2  # independent normal vectors: every point between them is normal, too
    return math.cos(angle) * of(seed) + math.sin(angle) * of(seed + 1)


def _write_picture(path: Path, batches: "Iterator[Tensor]", columns: int) -> None:
    import torch

    from smalti.data.grid import save_grid

    images = torch.cat([batch.float().cpu() for batch in batches])
    factor = max(1, 32 // min(images.shape[-2:]))
    images = images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
    save_grid(path, images, columns=columns, gap=2)


def _write_numbers(path: Path, batches: "Iterator[Tensor]", count: int) -> None:
    from smalti.cli._files import write_npz

    write_npz(path, [("arr_0", _as_array(batches, count))])


def _as_array(batches: "Iterator[Tensor]", count: int) -> "np.ndarray":
    """All images, uint8 with shape (count, H, W, C)."""
    import numpy as np

    from smalti.data.grid import to_uint8

    found = np.concatenate([to_uint8(batch).permute(0, 2, 3, 1).cpu().numpy() for batch in batches])
    if len(found) != count:
        raise ValueError(f"{len(found)} images: expected {count}")
    return found


def _square(count: int) -> int:
    """Columns of a square of ``count`` images.

    >>> _square(64), _square(10)
    (8, 4)
    """
    return int(-(-(count**0.5) // 1))
