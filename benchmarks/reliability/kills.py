"""Runs that are killed again and again at random moments must end as the run that was left alone, bit for bit.

python -m benchmarks.reliability.kills [KILLS] [PROCESSES] [SEED]
"""

import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.reliability._runs import (
    RECIPE,
    command,
    differences,
    kill_group,
    left_by,
    lines_of,
    start,
    wait_for_lines,
)

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
KILLS_OF_A_RUN = 4


def finish(recipe: Path, out: Path, processes: int) -> int:
    """Runs to the end; the exit code."""
    return start(command(recipe, out, "--resume", processes=processes), out.with_suffix(".log")).wait()


def interrupted(recipe: Path, out: Path, processes: int, kills: int, rng: random.Random) -> list[str]:
    """Trains with ``kills`` interruptions, each after a random number of new lines and a moment more."""
    said = []
    for _ in range(kills):
        process = start(command(recipe, out, "--resume", processes=processes), out.with_suffix(".log"))
        wait_for_lines(process, out / "metrics.jsonl", lines_of(out / "metrics.jsonl") + rng.randrange(1, 22))
        time.sleep(rng.random() * 0.05)
        number = rng.choice(SIGNALS)
        kill_group(process, number)
        said.append(f"{signal.Signals(number).name}@{lines_of(out / 'metrics.jsonl')}")
    return said


def main(kills: int, processes: int, seed: int) -> int:
    rng, wrong, total = random.Random(seed), [], Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "recipe.yaml"
        recipe.write_text(RECIPE)
        alone = Path(folder) / "alone"
        if finish(recipe, alone, processes):
            raise SystemExit(alone.with_suffix(".log").read_text())
        expected = left_by(alone)
        for number in range(-(-kills // KILLS_OF_A_RUN)):
            out = Path(folder) / f"run-{number}"
            said = interrupted(recipe, out, processes, KILLS_OF_A_RUN, rng)
            total.update(word.partition("@")[0] for word in said)
            code = finish(recipe, out, processes)
            found = differences(expected, left_by(out)) if code == 0 else [f"exit code {code}"]
            if found:
                wrong.append(f"{' '.join(said)}: {', '.join(found)}\n{out.with_suffix('.log').read_text()[-2000:]}")
    print("\n\n".join(wrong))
    signals = ", ".join(f"{count} {name}" for name, count in sorted(total.items()))
    runs = -(-kills // KILLS_OF_A_RUN)
    print(
        f"{sum(total.values())} kills of {runs} runs ({processes} processes, {signals}): {runs - len(wrong)} bit-equal"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:]]
    sys.exit(main(*(numbers + [40, 1, 0][len(numbers) :])))
