"""The quickstart's network with each quantizer at 9 bits a position: PSNR, usage, perplexity, seconds.

    python benchmarks/quantizers.py --steps 600 --seeds 3 --out runs/quantizers

trains one small tokenizer for each quantizer and seed on the packaged photos, without the cat and without an adversary,
and measures it on the cat. It prints a table in Markdown: medians over seeds, smallest and largest PSNR in brackets.
The perplexity of several index planes is the product of theirs.
"""

import argparse
import math
import statistics
import time
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

import smalti

TABLE = {"size": 512, "channels": 8}
START = {"init": "kmeans"}
MOVING = {"ema": {"decay": 0.99}, "revival": {"patience": 300}}
COMMITMENT = {"commitment": {"type": "commitment", "weight": 0.25}}
BOTH = {"codebook": {"type": "codebook"}, **COMMITMENT}
ENTROPY = {"entropy": {"type": "entropy", "weight": 0.1}}
KL = {"kl": {"type": "categorical_kl", "weight": 5.0e-4}}

# name -> (quantizer, the terms it is trained with)
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "`nearest`, gradients": ({"type": "nearest", **TABLE, **START}, BOTH),
    "`nearest`, moving averages": ({"type": "nearest", **TABLE, **START, **MOVING}, COMMITMENT),
    "`nearest`, `gradient_copy`": (
        {"type": "nearest", **TABLE, **START, "estimator": "gradient_copy", "codebook_gradient": True},
        BOTH,
    ),
    "`nearest`, `rotation`": ({"type": "nearest", **TABLE, **START, **MOVING, "estimator": "rotation"}, COMMITMENT),
    "`nearest`, `temperature` 0.1": (
        {"type": "nearest", **TABLE, **START, **MOVING, "temperature": 0.1},
        COMMITMENT,
    ),
    "`gumbel`": ({"type": "gumbel", **TABLE}, KL),
    "`fsq` [8, 8, 8]": ({"type": "fsq", "levels": [8, 8, 8]}, {}),
    "`fsq`, `sigmoid` (iFSQ)": ({"type": "fsq", "levels": [8, 8, 8], "bound": "sigmoid"}, {}),
    "`lfq`": ({"type": "lfq", "channels": 9}, {**COMMITMENT, **ENTROPY}),
    "`bsq`": ({"type": "bsq", "channels": 9}, ENTROPY),
    "`simvq`": ({"type": "simvq", **TABLE}, BOTH),
    "`ibq`": ({"type": "ibq", **TABLE}, {**BOTH, "entropy": {"type": "entropy", "weight": 0.05}}),
    "`residual`, 3 of 8 codes": (
        {"type": "residual", "steps": 3, "quantizer": {"type": "nearest", **TABLE, "size": 8, **START, **MOVING}},
        COMMITMENT,
    ),
}


def recipe(quantizer: dict[str, Any], terms: dict[str, Any], steps: int, seed: int) -> dict[str, Any]:
    """The quickstart with another quantizer, and nothing that acts after its first 800 steps."""
    made: dict[str, Any] = yaml.safe_load((resources.files("smalti.recipes") / "quickstart.yaml").read_text())
    del made["tiny"], made["discriminator"], made["optim"]["discriminator"]
    inner = quantizer.get("quantizer", quantizer)
    if inner["type"] == "gumbel":
        quantizer = {**quantizer, "temperature": {"updates": steps}}
    made["model"]["bottleneck"]["codebooks"] = {"code": {"quantizer": quantizer}}
    made["model"]["decoder"]["latent_channels"] = inner.get("channels") or len(inner["levels"])
    made["objective"] = {"generator": {"l1": {"type": "l1"}, "mse": {"type": "mse"}, **terms}}
    made["validation"]["every"] = steps
    made["engine"] = {"max_steps": steps, "seed": seed, "log_every": steps}
    return made


def measured(name: str, steps: int, seed: int, folder: Path) -> dict[str, float]:
    """Numbers of one training."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = "-".join("".join(letter if letter.isalnum() else " " for letter in name).split())
    path = folder / f"{stem}-{seed}.yaml"
    path.write_text(yaml.safe_dump(recipe(*VARIANTS[name], steps, seed), sort_keys=False))
    began = time.perf_counter()
    run = smalti.train(path, out=folder / path.stem, quiet=True)
    seconds = time.perf_counter() - began
    found = run.evaluation
    planes = [key.removeprefix("perplexity/") for key in found if key.startswith("perplexity/")]
    return {
        "psnr": found["psnr"],
        "usage": 100 * statistics.mean(found[f"codebook_usage/{plane}"] for plane in planes),
        "perplexity": math.prod(found[f"perplexity/{plane}"] for plane in planes),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/quantizers"))
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), help="part of a name")
    parser.add_argument("--threads", type=int, default=None)
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    print("| quantizer | PSNR, dB | codes used, % | perplexity | seconds |\n|---|---|---|---|---|", flush=True)
    for name in (name for name in VARIANTS if any(part in name for part in given.only)):
        found = [measured(name, given.steps, seed, given.out) for seed in range(given.seeds)]
        median = {key: statistics.median(each[key] for each in found) for key in found[0]}
        low, high = (pick(each["psnr"] for each in found) for pick in (min, max))
        print(
            f"| {name} | {median['psnr']:.2f} ({low:.2f} to {high:.2f}) | {median['usage']:.0f} | "
            f"{median['perplexity']:.0f} | {median['seconds']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
