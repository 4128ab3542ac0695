"""What is to be tokenized and how; from it follow the plan of the store and the images of each shard."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from smalti.config import config_of
from smalti.data import ImageSource, UnreadableImageError
from smalti.data._fingerprint import names_hash
from smalti.nn.distributed import rank
from smalti.nn.hashing import hash_of
from smalti.registry import UserError
from smalti.tokenizing.framing import Framing
from smalti.tokens.description import DataFacts, Plan, Tokenizer
from smalti.tokens.layout import Grid

log = logging.getLogger("smalti")

SHARD_IMAGES = 1024


@dataclass(frozen=True, kw_only=True)
class Job:
    """A tokenizer and images.

    Args:
        model: the tokenizer, in evaluation mode.
        path: where it was loaded from: a folder, or a repository.
        source: images.
        data: where they are, for ``store.json``.
        framing: which views.
        batch_size: views that go through the network together.
        shard_images: images of a shard.
        bits: whether tokens are packed.
        half: whether numbers of a continuous bottleneck are float16.
    """

    model: Any
    path: str
    source: ImageSource
    data: str
    framing: Framing
    batch_size: int = 8
    shard_images: int = SHARD_IMAGES
    bits: bool = False
    half: bool = False

    @cached_property
    def names(self) -> Sequence[str]:
        """One for each item."""
        own = getattr(self.source, "names", ())  # a source from elsewhere need not have any
        return own if len(own) == len(self.source) else [f"item {item}" for item in range(len(self.source))]

    @cached_property
    def shares(self) -> "Sequence[Share]":
        """The images of each shard: those of one grid in the order of the data, so many at a time.

        Raises:
            UserError: naming the first image whose sides are no multiples of the model's factor.
        """
        return _shares(self)

    def plan(self) -> Plan:
        """All that the bytes of the store depend on.

        Raises:
            UserError: for options that this tokenizer has no use for, or a size that it cannot encode.
        """
        model, size = self.model, self.framing.size
        codebooks = dict(model.codebook_sizes)
        if self.bits and not codebooks:
            raise UserError("bits pack tokens: this model is continuous and has none")
        if self.half and codebooks:
            raise UserError("float16 is for the numbers of a continuous model: this one has tokens, which are exact")
        if size is not None and size % model.factor:
            raise UserError(f"size {size}: expected a multiple of the model's factor {model.factor}")
        moments = ("mean", "logvar") if "posterior" in model.provides else ("latent",)
        return Plan(
            tokenizer=tokenizer_facts(model, self.path),
            codebooks=codebooks,
            arrays=() if codebooks else moments,
            channels=0 if codebooks else model.bottleneck.latent_channels,
            float_type="float16" if self.half else "float32",
            bits=self.bits,
            factor=model.factor,
            image_channels=model.image_channels,
            image_size=None if size is None else (size, size),
            transform=self.framing.described(),
            views=self.framing.names,
            data=DataFacts(
                source=_absolute(self.data),
                items=len(self.source),
                options=_options(self.source),
                names_sha256=names_hash(self.source),
            ),
            batch_size=self.batch_size,
            shard_images=self.shard_images,
        )


@dataclass(frozen=True, kw_only=True)
class Share:
    """The images of one shard.

    Args:
        number: of the shard.
        grid: (h, w) of all of them.
        items: their numbers in the data, in order.
    """

    number: int
    grid: Grid
    items: Sequence[int]


def _shares(job: Job) -> list[Share]:
    by_grid: dict[Grid, list[int]] = {}
    for item, grid in enumerate(_grids(job)):
        if grid is not None:
            by_grid.setdefault(grid, []).append(item)
    parts = [
        (grid, items[first : first + job.shard_images])
        for grid, items in by_grid.items()
        for first in range(0, len(items), job.shard_images)
    ]
    return [Share(number=number, grid=grid, items=items) for number, (grid, items) in enumerate(parts)]


def tokenizer_facts(model: Any, path: str) -> Tokenizer:
    """Name, path and hash of a tokenizer: what a store says of it."""
    place = _absolute(path)
    return Tokenizer(name=place.rstrip("/").rpartition("/")[2], path=place, hash=hash_of(model.state_dict()))


def _absolute(path: str) -> str:
    """A path of this machine from its root, however it was spelled; ``RUN@best`` keeps its end, others stay."""
    folder, mark, name = path.rpartition("@")
    for place, end in ((path, ""), (folder, mark + name)):
        if place and Path(place).expanduser().exists():
            return os.path.abspath(Path(place).expanduser()) + end
    return path


def _grids(job: Job) -> list[Grid | None]:
    """The grid of each image; None of one that cannot be read."""
    factor, size = job.model.factor, job.framing.size
    if size is not None:
        return [(size // factor, size // factor)] * len(job.source)

    def grid(item: int) -> Grid | None:
        try:
            height, width = _size_of(job.source, item)
        except UnreadableImageError as error:
            if rank() == 0:
                log.warning("left out: %s", error)
            return None
        if height % factor or width % factor:
            rule = f"expected both divisible by the model's factor {factor}"
            raise UserError(
                f"{job.names[item]}: {height} x {width} pixels: {rule}; --size resizes and crops all images"
            )
        return (height // factor, width // factor)

    with ThreadPoolExecutor(8) as pool:  # waiting for the file system is most of it
        return list(pool.map(grid, range(len(job.source))))


def _options(source: Any) -> dict[str, Any]:
    """How a source reads its items: what it was built with, but for where they lie."""
    if not isinstance(source, ImageSource):
        return {}
    told = config_of(source)
    return {name: value for name, value in told.items() if name not in {"type", *source.locations}}


def _size_of(source: Any, item: int) -> tuple[int, int]:
    """Height and width of an image, whoever wrote the source; from the header of its file where it is one."""
    told = getattr(source, "size_of", None)
    if told is not None:
        height, width = told(item)
        return height, width
    width, height = source[item]["image"].size
    return height, width
