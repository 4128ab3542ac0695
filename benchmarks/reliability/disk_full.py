"""A disk of every size is full at another moment: the run stops with one message, and with more space it ends as ever.

python -m benchmarks.reliability.disk_full        (needs the right to mount a tmpfs)
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from benchmarks.reliability._children import in_a_child
from benchmarks.reliability._runs import RECIPE, differences, left_by
from benchmarks.reliability.damaged import train

KIB = (32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448, 480, 512, 544)


def mount(place: Path, kib: int, *options: str) -> None:
    words = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={kib}k", *options)), "tmpfs", str(place)]
    subprocess.run(words, check=True)


def judged(recipe: Path, place: Path, kib: int, expected: dict[str, object]) -> str:
    """What a run on a disk of ``kib`` did, and did once there was more; BROKE if a promise did."""
    mount(place, kib)
    try:
        out = place / "run"
        outcome = in_a_child(lambda: train(recipe, out), limit=120.0)
        code, said = outcome.value or (-1, outcome.died)
        if code not in {0, 2} or not said.strip():
            return f"BROKE: exit code {code}: {said.strip()[-300:]}"
        first = "ran" if code == 0 else said.strip().splitlines()[-1]
        mount(place, 1 << 16, "remount")
        outcome = in_a_child(lambda: train(recipe, out), limit=120.0)
        code, said = outcome.value or (-1, outcome.died)
        if code != 0:
            return f"BROKE: {first}; then exit code {code}: {said.strip()[-300:]}"
        found = differences(expected, left_by(out))
        return f"BROKE: {first}; then other {', '.join(found)}" if found else first
    finally:
        subprocess.run(["umount", str(place)], check=True)


def main() -> int:
    import accelerate  # noqa: F401  # once, not in every child
    import torchmetrics  # noqa: F401

    import smalti.assembly.assemble  # noqa: F401

    broken = ran = 0
    with tempfile.TemporaryDirectory() as folder:
        recipe, place = Path(folder) / "recipe.yaml", Path(folder) / "disk"
        recipe.write_text(RECIPE)
        place.mkdir()
        in_a_child(lambda: train(recipe, Path(folder) / "whole"), limit=120.0)
        expected = left_by(Path(folder) / "whole")
        for kib in KIB:
            word = judged(recipe, place, kib, expected)
            broken, ran = broken + word.startswith("BROKE"), ran + (word == "ran")
            print(f"{kib} KiB: {word}", flush=True)
    print(f"{len(KIB)} disks, {len(KIB) - ran} too small: {len(KIB) - broken} ended bit-equal once there was space")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
