"""Small stores of seeded tokens."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from smalti.tokens.description import DataFacts, Plan, Tokenizer
from smalti.tokens.layout import Grid
from smalti.tokens.store import TokenStore
from smalti.tokens.writer import StoreWriter

HASH = "ab" * 32


def plan(codebooks: Mapping[str, int], views: int = 1, items: int = 7, **options: Any) -> Plan:
    options.setdefault("tokenizer", Tokenizer(name="toy", path="toys/1", hash=HASH))
    return Plan(
        codebooks=dict(codebooks),
        factor=4,
        image_channels=3,
        transform={"crop": "none"},
        views=tuple(f"view-{number}" for number in range(views)),
        data=DataFacts(source="toys", items=items, names_sha256="cd" * 32),
        batch_size=2,
        **{"shard_images": 3, **options},
    )


def tokens(codebooks: Mapping[str, int], count: int, grid: Grid, seed: int = 0) -> np.ndarray:
    """int64 (count, G, h, w), the largest code of each codebook among them."""
    rng = np.random.default_rng(seed)
    found = np.stack([rng.integers(0, size, (count, *grid), dtype=np.int64) for size in codebooks.values()], axis=1)
    for group, size in enumerate(codebooks.values()):
        found[0, group, 0, 0], found[-1, group, -1, -1] = size - 1, size - 1
    return found


def write(
    folder: Path, what: Plan, values: Sequence[Mapping[str, np.ndarray]], columns: Mapping[str, Sequence[Any]]
) -> TokenStore:
    """A store of images, each with its views (V, ...), in shards of the plan's length."""
    writer = StoreWriter(folder, what)
    writer.begin(resume=False)
    by_grid: dict[Grid, list[int]] = {}
    for item, value in enumerate(values):
        by_grid.setdefault(next(iter(value.values())).shape[-2:], []).append(item)
    number = 0
    for grid, items in by_grid.items():
        for first in range(0, len(items), what.shard_images):
            some = items[first : first + what.shard_images]
            rows = ((values[item], [item], {name: [column[item]] for name, column in columns.items()}) for item in some)
            writer.write(number, grid, rows)
            number += 1
    return writer.finish(number, [f"{item}.png" for item in range(len(values))])


def small(folder: Path, sizes: Sequence[int] = (16, 300), views: int = 2, count: int = 7, **options: Any) -> TokenStore:
    """Seven images of 2 x 3 positions with their labels."""
    codebooks = {f"c{number}": size for number, size in enumerate(sizes)}
    every = tokens(codebooks, count * views, (2, 3)).reshape(count, views, len(sizes), 2, 3)
    labels = [item % 3 for item in range(count)]
    return write(
        folder, plan(codebooks, views, count, **options), [{"indices": one} for one in every], {"label": labels}
    )
