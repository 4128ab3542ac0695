"""Recipes with random damage: each must be read or refused with a message, in time; what is accepted must run.

python -m benchmarks.reliability.fuzz_recipes [COUNT] [SEED] [--run]
"""

import copy
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import yaml

from benchmarks.reliability._children import in_a_child
from smalti.config import ConfigError
from smalti.registry import UserError
from tests.assembly.mistakes import GAN, VQ

SHIPPED = ("tiny-vqvae", "tiny-wgan-digits", "tiny-wgan-gp", "tiny-vae-kl-f8", "tiny-vqgan-f16", "tiny-fqgan-dual-f16")
SECONDS = 2.0
KEYS = ("weight", "start", "type", "size", "x", "every", "inputs", "norm", "1", "")
ODD: tuple[Any, ...] = (
    None, True, False, "", " ", "x", "x" * 5000, "../../x", "a/b", "\x85", "ünï", "null", "1", "1e-4", "image",
    "prediction", "generator", "step", "type", -1, 0, 1, 2, 3, 7, 255, 10**6, 2**31, 2**63 - 1, 2**63, 2**64, 10**30,
    10**400, -(10**400), 0.0, -0.5, 0.5, 1e-320, 1e308, float("inf"), float("-inf"), float("nan"), [], {}, [[]], [None],
    [1], [1, 2], [1, 2, 3], ["x"], [{}], {"x": {}}, {"type": "x"}, {"type": None}, {"type": ".x"}, {"type": "x.x.x"},
    {"type": "os.abort"}, {"type": "builtins.exec"}, {"type": "subprocess.Popen", "args": ["true"]}, {"type": "mse"},
    {"type": "hinge"}, {"type": "conv"}, {"type": "torch.nn.Linear"}, {"type": "torch.load"}, {"type": "a..b"},
    "os.abort", "discriminator*5", "generator*2", "discriminator*100000000", list(range(2000)), 1 + 10**18,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every path to a value inside ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [path] if path else []
    for key, item in items:
        found += places(item, (*path, key))
    return found


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def damage(document: Any, donor: Any, rng: random.Random) -> str:
    """Changes ``document`` in one place; says what was done."""
    path = rng.choice(places(document))
    parent, key, old = at(document, path[:-1]), path[-1], at(document, path)
    kind = rng.choice(("odd", "odd", "odd", "remove", "rename", "graft", "copy", "wrap", "scale", "add"))
    if kind == "remove":
        del parent[key]
    elif kind == "rename" and isinstance(parent, dict):
        word = str(key)
        spot = rng.randrange(len(word) + 1)
        parent[word[:spot] + rng.choice("abcxyz_.-0 /") + word[spot + rng.randrange(2) :]] = parent.pop(key)
    elif kind == "graft":
        parent[key] = copy.deepcopy(at(donor, rng.choice(places(donor))))
    elif kind == "copy":
        parent[key] = copy.deepcopy(at(document, rng.choice(places(document))))
    elif kind == "wrap":
        parent[key] = rng.choice(([old], {"type": old}, {"x": old}, str(old), [old, old]))
    elif kind == "scale" and isinstance(old, (int, float)):
        parent[key] = old * rng.choice((-1, 0, 0.5, 2, 3, 10, 1000, 10**9, 10**20, 10**40))
    elif kind == "add" and isinstance(parent, dict):
        parent[rng.choice(("weight", "start", "type", "size", "x", "every", "inputs", "norm", "1", ""))] = rng.choice(
            ODD
        )
    else:
        parent[key] = copy.deepcopy(rng.choice(ODD))
    return f"{kind} {'.'.join(map(str, path))}"


def bases() -> dict[str, Any]:
    from smalti.assembly.recipe import read_document

    found = {name: read_document(name).data for name in SHIPPED}
    return found | {"VQ": yaml.safe_load(VQ), "GAN": yaml.safe_load(GAN)}


def read(path: Path) -> tuple[str, str]:
    """Whether a recipe is accepted, refused or breaks the reader, and what is said."""
    from smalti.assembly.recipe import load_recipe

    try:
        load_recipe(path)
    except ConfigError as error:
        return "refused", str(error)
    except UserError as error:
        return "refused", str(error)
    except BaseException:
        return "broke", traceback.format_exc()
    return "accepted", ""


def run(path: Path, out: Path) -> tuple[str, str]:
    """Whether two steps of an accepted recipe run."""
    import smalti

    short = ["engine.max_steps=2", "engine.device=cpu"]
    try:
        smalti.train(path, short, out=out, quiet=True)
    except UserError as error:
        return "stopped", str(error)
    except BaseException:
        return "broke", traceback.format_exc()
    return "ran", ""


def main(count: int, seed: int, also_run: bool) -> int:
    import torch  # noqa: F401  # once, not in every child

    import smalti.assembly.assemble  # noqa: F401

    rng, found, bad = random.Random(seed), Counter[str](), []
    slowest = 0.0
    recipes = bases()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            name = rng.choice(list(recipes))
            document, donor = copy.deepcopy(recipes[name]), recipes[rng.choice(list(recipes))]
            done = [damage(document, donor, rng) for _ in range(rng.choice((1, 1, 2, 4)))]
            path = Path(folder) / f"{number}.yaml"
            path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
            outcome = in_a_child(lambda path=path: read(path))
            word, said = outcome.value or ("broke", outcome.died)
            slowest = max(slowest, outcome.seconds)
            if word == "accepted" and also_run:
                second = in_a_child(lambda path=path, n=number: run(path, Path(folder) / f"run-{n}"), limit=120.0)
                word, said = second.value or ("broke", second.died)
            found[word] += 1
            if word in {"broke", "stopped"} or outcome.seconds > SECONDS:
                what = f"{name} #{number} {'; '.join(done)}: {word} after {outcome.seconds:.1f} s"
                bad.append(f"{what}\n{said.strip()[-900:]}")
    print("\n\n".join(bad))
    counts = ", ".join(f"{value} {word}" for word, value in sorted(found.items()))
    print(f"{count} damaged recipes (seed {seed}): {counts}; slowest {slowest:.2f} s; {len(bad)} to look at")
    return 1 if bad else 0


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    sys.exit(main(*(numbers + [600, 0][len(numbers) :]), also_run="--run" in sys.argv))
