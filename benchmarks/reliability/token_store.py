"""Token stores whose making is killed at random moments must end as the one that was left alone, byte for byte.

python -m benchmarks.reliability.token_store [KILLS] [SEED]; with Ray installed its store is compared, too
"""

import hashlib
import importlib.util
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

import smalti
from benchmarks.reliability._runs import kill_group, start

IMAGES, SHARD = 160, 8
SIZES = ((64, 96), (64, 64), (128, 96))


def made(folder: Path) -> tuple[Path, Path]:
    """A model and photos of three sizes."""
    smalti.build("tiny-fqgan-dual-f8").save_pretrained(folder / "model")
    (folder / "photos").mkdir()
    for number in range(IMAGES):
        values = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        height, width = SIZES[number % len(SIZES)]
        Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC).save(
            folder / "photos" / f"{number:04d}.png"
        )
    return folder / "model", folder / "photos"


def command(folder: Path, out: Path, processes: int = 1, *more: str) -> list[str]:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    options = ["--views", "flip", "--shard-images", str(SHARD), "--batch-size", "8", "--resume", *more]
    data = ["--data", str(folder / "photos"), "--out", str(out)]
    return [sys.executable, *launcher, "-m", "smalti", "tokenize", str(folder / "model"), *data, *options]


def finished(words: list[str], out: Path) -> float:
    """Seconds that it took.

    Raises:
        SystemExit: if it failed.
    """
    began = time.perf_counter()
    if start(words, out.with_suffix(".log")).wait():
        raise SystemExit(out.with_suffix(".log").read_text()[-3000:])
    return time.perf_counter() - began


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def shards(out: Path) -> int:
    return len(list(out.glob("shards/*.json")))


def killed(folder: Path, out: Path, kills: int, rng: random.Random) -> list[str]:
    """Kills it again and again, in one process and in two by turns, each at some new shard and a moment more."""
    said: list[str] = []
    for number in range(kills):
        processes = 1 + number % 2
        process = start(command(folder, out, processes), out.with_suffix(".log"))
        wanted = shards(out) + rng.randrange(0, 4)
        while process.poll() is None and (shards(out) < wanted or not (out / "plan.json").exists()):
            time.sleep(0.001)
        time.sleep(rng.random() * 0.2)
        kill_group(process)
        said.append(f"{shards(out)}/{processes}")
    return said


def main(kills: int = 10, seed: int = 0) -> int:
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made(folder)
        seconds = finished(command(folder, folder / "alone"), folder / "alone")
        expected = hashes(folder / "alone")
        print(f"{IMAGES} images, {shards(folder / 'alone')} shards: {seconds:.1f} s in one process")
        finished(command(folder, folder / "two", 2), folder / "two")
        wrong += ["two processes"] if hashes(folder / "two") != expected else []
        said = killed(folder, folder / "killed", kills, random.Random(seed))
        finished(command(folder, folder / "killed"), folder / "killed")
        wrong += ["killed"] if hashes(folder / "killed") != expected else []
        print(f"{kills} kills -9, at shards/processes {' '.join(said)}")
        engines = "one process, two, killed"
        if importlib.util.find_spec("ray"):
            finished(command(folder, folder / "ray", 1, "--engine", "ray", "--actors", "2"), folder / "ray")
            wrong += ["ray"] if hashes(folder / "ray") != expected else []
            engines += ", Ray with two actors"
    print(f"unequal: {', '.join(wrong)}" if wrong else f"all files equal: {engines}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*(int(word) for word in sys.argv[1:])))
