"""``smalti sample``: a generator -> pictures, strips between them, or a file of many images."""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from smalti.cli._drawn import Places
from smalti.cli._model import FLOAT, ModelPath, TrustCode, open_sampler
from smalti.cli._options import Device, check_room
from smalti.cli._sample_options import (
    BATCH,
    Classes,
    Columns,
    Count,
    Folder,
    Force,
    Guidance,
    GuidanceInterval,
    GuidanceSchedule,
    Interpolate,
    Label,
    Npz,
    Out,
    Seed,
    Temperature,
    Together,
    TokenizerPath,
    TopK,
    TopP,
    Truncation,
)
from smalti.cli._token_sampling import Draw, PositionBar, classes_of, token_images
from smalti.registry import UserError, short_name

if TYPE_CHECKING:
    from torch import Tensor

    from smalti.models._generator import Generator
    from smalti.models._token_model import TokenModel


def sample(
    model: ModelPath,
    out: Out = None,
    npz: Npz = None,
    folder: Folder = None,
    count: Count = 64,
    seed: Seed = 0,
    classes: Classes = None,
    label: Label = None,
    truncation: Truncation = None,
    interpolate: Interpolate = None,
    guidance: Guidance = None,
    guidance_schedule: GuidanceSchedule = None,
    guidance_interval: GuidanceInterval = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    tokenizer: TokenizerPath = None,
    batch_size: Together = BATCH,
    columns: Columns = None,
    device: Device = "auto",
    trust_code: TrustCode = False,
    force: Force = False,
) -> None:
    """Sample images from a GAN or a token model.

    The tokens of a token model are decoded by the tokenizer that it was trained with. An image depends only on its
    seed, not on how many are sampled. The .npz holds the array arr_0, uint8 with shape (N, H, W, C), which tools for
    FID expect.

    Example: smalti sample runs/far-digits --out digits.png --classes 0,1,2 --guidance 2
    """
    from smalti.models._generator import Generator

    places = Places.asked(out, npz, folder, force)
    found = open_sampler(model, device, trust_code)
    draw = Draw(
        guidance=guidance,
        guidance_schedule=guidance_schedule,
        guidance_interval=guidance_interval,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        tokenizer=tokenizer,
    )
    chosen = _chosen(found.num_classes, classes, label)
    if isinstance(found, Generator):
        _refuse(draw.given(), found, "a GAN's generator draws no tokens")
        steps = interpolate or 1
        wide = columns or (steps if interpolate else _square(count))
        _check_room(count * steps, found.image_channels, found.image_size, places)
        images = images_of(found, seed, count, 1.0 if truncation is None else truncation, chosen, steps, batch_size)
        places.write(images, count * steps, wide)
        typer.echo(f"{count * steps} images -> {places}")
        return
    given = [("--truncation", truncation), ("--interpolate", interpolate)]
    _refuse([name for name, value in given if value is not None], found, "a model of tokens draws from no noise")
    _sample_tokens(found, model, draw, places, seed, count, chosen, batch_size, columns or _square(count), trust_code)
    typer.echo(f"{count} images -> {places}")


def _sample_tokens(
    model: "TokenModel", path: str, draw: Draw, places: Places, seed: int, count: int, classes: "list[int] | None",
    batch_size: int, columns: int, trust_code: bool,
) -> None:  # fmt: skip
    from smalti.interop.decoding import kept_with, tokenizer_for

    if model.text_length:
        raise UserError(f"{path}: its images are of captions, whose features model.sample(text=...) takes in Python")
    options = draw.options(model)
    if not model.num_classes and draw.guidance not in {None, "1", "1.0"}:
        raise UserError(f"--guidance {draw.guidance}: this model has no classes that it could be guided by")
    device = str(next(model.parameters()).device)
    decoder = tokenizer_for(model, kept_with(path), draw.tokenizer, trust_code=trust_code, device=device)
    sides = (model.grid[0] * decoder.factor, model.grid[1] * decoder.factor)
    _check_room(count, decoder.image_channels, sides, places)
    with PositionBar() as bar:
        images = token_images(
            model, decoder, seed=seed, count=count, classes=classes, batch=batch_size, tell=bar.tell, **options
        )
        places.write(images, count, columns)


def _chosen(num_classes: int, classes: str | None, label: int | None) -> list[int] | None:
    """The classes to make in turn; None: all of them."""
    if classes is not None and label is not None:
        raise UserError(f"--classes {classes} and --label {label}: expected one of them")
    if label is not None and label >= num_classes:
        known = f"0 to {num_classes - 1}" if num_classes else "none, it has no classes"
        raise UserError(f"--label {label}: expected one of this model's classes ({known})")
    return [label] if label is not None else None if classes is None else classes_of(classes, num_classes)


def _refuse(given: Sequence[str], model: object, why: str) -> None:
    if given:
        raise UserError(f"{given[0]}: not of a {short_name(type(model))}: {why}")


def _check_room(count: int, channels: int, size: Sequence[int], places: Places) -> None:
    needed = count * channels * math.prod(size) * places.copies
    kept = places.picture is not None or places.numbers is not None
    check_room(needed if kept else FLOAT, f"{count:,} images at once", "--count or --interpolate")


def images_of(
    generator: "Generator",
    seed: int,
    count: int,
    truncation: float = 1.0,
    label: "int | Sequence[int] | None" = None,
    steps: int = 1,
    batch: int = BATCH,
) -> "Iterator[Tensor]":
    """Batches of images (n, C, H, W) in [-1, 1], ``count * steps`` in all: image i has seed ``seed + i``.

    With ``steps`` above 1, each is followed by steps towards the next, along the sphere on which noise lies.

    Args:
        generator: in evaluation mode.
        seed: of the first image.
        count: images, or strips.
        truncation: below 1, variety is given for quality.
        label: the class, or classes in turn; None: image i has class i modulo their number.
        steps: images of a strip.
        batch: images that are made together.
    """
    import torch

    known = range(generator.num_classes) if label is None else [label] if isinstance(label, int) else label
    place = next(generator.parameters())
    for start in range(0, count * steps, batch):
        numbers = range(start, min(start + batch, count * steps))
        rows = [_between(seed + n // steps, n % steps / max(steps - 1, 1), generator.latent_size) for n in numbers]
        noise = torch.stack(rows).to(place)
        labels = None
        if generator.num_classes:
            labels = torch.tensor([known[(n // steps) % len(known)] for n in numbers], device=place.device)
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


def _square(count: int) -> int:
    """Columns of a square of ``count`` images.

    >>> _square(64), _square(10)
    (8, 4)
    """
    return int(-(-(count**0.5) // 1))
