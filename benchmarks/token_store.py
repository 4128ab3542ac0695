"""Random access to a token store, and the memory that takes: ``python benchmarks/token_store.py --items 1000000``."""

import argparse
import random
import re
import tempfile
import time
from pathlib import Path

import numpy as np

from smalti.tokens.description import DataFacts, Plan, Tokenizer
from smalti.tokens.store import TokenStore
from smalti.tokens.writer import StoreWriter


def make(folder: Path, items: int, grid: int, codebooks: int, bits: bool) -> None:
    sizes = {f"c{number}": 2**14 for number in range(codebooks)}
    plan = Plan(
        tokenizer=Tokenizer(name="seeded", path="", hash="0" * 64), codebooks=sizes, factor=16, image_channels=3,
        transform={}, views=("whole",), data=DataFacts(source="seeded", items=items, names_sha256="0" * 64),
        batch_size=1024, shard_images=1024, bits=bits,
    )  # fmt: skip
    writer = StoreWriter(folder, plan)
    writer.begin(resume=False)
    numbers = range(0, items, plan.shard_images)
    for shard, first in enumerate(numbers):
        some = list(range(first, min(first + plan.shard_images, items)))
        indices = np.random.default_rng(shard).integers(0, 2**14, (len(some), codebooks, grid, grid))
        labels = {"label": [item % 1000 for item in some]}
        writer.write(shard, (grid, grid), iter([({"indices": indices}, some, labels)]))
    writer.finish(len(numbers), [f"{item:08d}.png" for item in range(items)])


def memory() -> dict[str, float]:
    """MiB of this process: its own, and of files that are mapped, which the system takes back when it wants to."""
    told = Path("/proc/self/status").read_text()
    return {name: int(re.search(rf"{name}:\s+(\d+)", told)[1]) / 1024 for name in ("RssAnon", "RssFile")}


def best(work, count: int) -> float:
    """Items for each second that a core worked (others may share it), the best of five."""
    rates = []
    for _ in range(5):
        began = time.process_time()
        work()
        rates.append(count / (time.process_time() - began))
    return max(rates)


def drain(items) -> None:
    for _ in items:
        pass


def measure(folder: Path, reads: int, batch: int) -> None:
    before = memory()
    store = TokenStore.open(folder)
    size = len(store)
    opened = memory()
    drawn = [random.Random(0).randrange(size) for _ in range(reads)]
    whole = best(lambda: drain(map(store.__getitem__, drawn)), reads)
    single = best(lambda: drain(map(store.read, drawn)), reads)
    order = np.array(drawn)
    parts = [order[first : first + batch] for first in range(0, reads, batch)]
    batched = best(lambda: drain(map(store.read, parts)), reads)
    after = memory()
    total = sum(path.stat().st_size for path in folder.rglob("*.bin")) / 2**20
    kind = "packed" if store.description.bits else "plain"
    print(f"{size:>9,} items, {kind}, {total:,.0f} MiB on the disk, {len(store.description.shards)} shards")
    print(f"  store[i] {whole:>9,.0f} items/s, read(i) {single:>9,.0f}, read of {batch} {batched:>9,.0f}")
    grown = {name: (opened[name] - before[name], after[name] - before[name]) for name in before}
    print(f"  memory of the process: +{grown['RssAnon'][0]:.1f} MiB opened, +{grown['RssAnon'][1]:.1f} MiB at the end;"
          f" mapped files +{grown['RssFile'][1]:.1f} MiB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--grid", type=int, default=16)
    parser.add_argument("--codebooks", type=int, default=1)
    parser.add_argument("--bits", action="store_true")
    parser.add_argument("--reads", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--folder", type=Path, help="A store that is there; else one is made and removed.")
    asked = parser.parse_args()
    if asked.folder is not None:
        measure(asked.folder, asked.reads, asked.batch)
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder) / "store", asked.items, asked.grid, asked.codebooks, asked.bits)
        measure(Path(folder) / "store", asked.reads, asked.batch)


if __name__ == "__main__":
    main()
