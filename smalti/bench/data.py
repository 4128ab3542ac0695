"""``smalti bench data`` and ``encode``: images per second of one core."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smalti.bench.measure import Measured, Row, compare, interleave

if TYPE_CHECKING:
    import torch

    from smalti.models.autoencoder import Autoencoder

Run = Callable[[], object]


def write_jpegs(folder: Path, count: int, width: int = 500, height: int = 375) -> None:
    """Writes noisy, smooth pictures of the size of an average photo of ImageNet, about 55 KiB each."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int64)
        noisy = smooth + generator.integers(-12, 13, (height, width, 3))
        picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        picture.save(folder / f"{number:04d}.jpg", quality=90)


def measure_data(size: int, images: int, repeats: int) -> tuple[list[Row], list[str]]:
    """Rows of the loader: the default path, the fast one, and both in floating point from the start."""
    import torch

    from smalti.data.image_folder import ImageFolder
    from smalti.data.loader import BatchLoader, to_device
    from smalti.data.transforms import Transform

    default = Transform(size=size, crop="adm_random", flip=True)
    with tempfile.TemporaryDirectory() as name:
        write_jpegs(Path(name), images)
        source = ImageFolder(name)
        mean = sum(path.stat().st_size for path in Path(name).iterdir()) / images / 1024
        loaders = {
            kind: BatchLoader(source, transform, batch_size=images, seed=0)
            for kind, transform in (("data", default), ("data fast", replace(default, fast=True)))
        }
        variants: dict[str, Run] = {kind: _once(loader) for kind, loader in loaders.items()}
        variants["decode only"] = lambda: [source[index] for index in range(images)]
        variants["float32 on the host"] = lambda: to_device(next(loaders["data"].batches()), torch.device("cpu"))
        found = interleave(variants, repeats, torch.device("cpu"), memory=False)
    rows = _rates(found, ("data", "data fast"), ("data", "decode only", "float32 on the host"))
    notes = [f"{name}: {images / value.seconds:.0f} images/s on one core" for name, value in found.items()]
    return rows, [*notes, f"{images} JPEGs of 500 x 375 pixels, {mean:.0f} KiB each, to {size} pixels, uint8"]


def _once(loader: Any) -> Run:
    return lambda: next(loader.batches())


def _rates(found: Mapping[str, Measured], names: tuple[str, ...], others: tuple[str, ...]) -> list[Row]:
    rows: list[Row] = []
    for name in names:
        rows += compare(name, found[name], {other: found[other] for other in others if other != name})
    return rows


def measure_encode(
    tokenizer: "Autoencoder", size: int, batch: int, device: "torch.device", repeats: int
) -> tuple[list[Row], list[str]]:
    """Rows of a tokenizer's encoder and decoder on ``batch`` images of side ``size``, in float32 and bfloat16."""
    import torch

    torch.manual_seed(0)
    images = torch.rand(batch, tokenizer.image_channels, size, size, device=device) * 2 - 1
    with torch.inference_mode():
        latent = tokenizer.encode(images).latent

    def run(work: Callable[["torch.Tensor"], object], value: "torch.Tensor", bf16: bool) -> Run:
        def once() -> None:
            with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                work(value)

        return once

    variants = {
        f"{name}{' bf16' if bf16 else ''}": run(work, value, bf16)
        for name, work, value in (("encode", tokenizer.encode, images), ("decode", tokenizer.decode, latent))
        for bf16 in (False, True)
    }
    found = interleave(variants, repeats, device)
    rows = compare("encode bf16", found["encode bf16"], {"encode": found["encode"]})
    rows += compare("decode bf16", found["decode bf16"], {"decode": found["decode"]})
    return rows, [f"{name}: {batch / value.seconds:.2f} images/s of {size} pixels" for name, value in found.items()]
