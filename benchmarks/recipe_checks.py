"""How long a recipe's check takes once torch is imported, over the table of planted mistakes.

python -m benchmarks.recipe_checks
"""

import statistics
import time

import torch  # noqa: F401  # its import is not what is measured

from smalti.assembly.recipe import validate
from smalti.config import ConfigError, override
from smalti.config.document import parse
from tests.assembly.mistakes import MISTAKES


def seconds(recipe: str, change: str) -> float:
    document = parse(recipe)
    override(document, change)
    began = time.perf_counter()
    try:
        validate(document)
    except ConfigError:
        return time.perf_counter() - began
    raise SystemExit(f"not found: {change}")


if __name__ == "__main__":
    times = {(one.set, one.recipe): seconds(one.recipe, one.set) for one in MISTAKES}
    slowest = sorted(times, key=times.__getitem__)[-3:]
    print(f"{len(times)} mistakes, all found; median {statistics.median(times.values()):.3f} s")
    for change in reversed(slowest):
        print(f"{times[change]:.3f} s  {change[0]}")
