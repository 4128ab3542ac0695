"""The clip bound of a WGAN from 0.001 to 1, and the gradient penalty beside it: the table of ``docs/wgan.md``.

    OMP_NUM_THREADS=1 python benchmarks/wgan_clip_sweep.py FOLDER

Trains ``wgan-digits`` for 500 generator updates with each, 3 seeds; 5 minutes of one core. Runs that are already in
FOLDER are read and not repeated.
"""

import json
import statistics
import sys
from pathlib import Path

import smalti

BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
SEEDS = (0, 1, 2)
STEPS = 500
COLUMNS = ("clipped", "critic/slope_max", "critic/estimate", "critic/estimate_per_slope")


def train(name: str, bound: float | None, seed: int, folder: Path) -> dict[str, float]:
    """One run: the last log record's diagnostics, the distance, and where the estimate was largest."""
    out = folder / f"{name}-{seed}"
    if not (out / "model").is_dir():
        overrides = [f"engine.max_steps={STEPS}", f"engine.seed={seed}", "engine.log_every=10", "engine.sample_every=0"]
        overrides += ["engine.checkpoint_every=0", "validation.every=0", "engine.ema={half_life: 5000}"]
        if bound is None:
            overrides += ["cycle=[discriminator*5, generator]"]
            overrides += ["objective.discriminator.penalty={type: gradient_penalty, weight: 10}"]
            adam = "{type: adam, lr: 5.0e-4, betas: [0.0, 0.9]}"
            overrides += [f"optim.{player}={adam}" for player in ("generator", "discriminator")]
        else:
            overrides += [f"cycle=[{{phase: discriminator, repeat: 5, weight_clip: {bound}}}, generator]"]
        smalti.train("wgan-digits", overrides, out=out, quiet=True)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    records = [line for line in lines if "train/generator/total" in line]
    evaluation = json.loads((out / "evaluation.json").read_text())
    found = {name: records[-1].get(f"train/discriminator/{name}", 0.0) for name in COLUMNS}
    curve = [record["train/discriminator/critic/estimate"] for record in records]
    peak = max(range(len(curve)), key=curve.__getitem__)
    floor = evaluation["sliced_wasserstein"] / evaluation["sliced_wasserstein_floor"]
    return {**found, "peak_step": records[peak]["step"], "peak": curve[peak], "last": curve[-1], "distance": floor}


def main(folder: Path) -> None:
    """Trains all and prints a row of medians for each."""
    print("| bound | at the bound | largest slope | estimate | estimate / slope | peak at | distance / floor |")
    for bound in (*BOUNDS, None):
        name = "penalty" if bound is None else f"clip-{bound}"
        runs = [train(name, bound, seed, folder) for seed in SEEDS]
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        worst = max(run["distance"] for run in runs)
        print(
            f"| {bound or 'gradient penalty'} | {middle['clipped']:.0%} | {middle['critic/slope_max']:.3g} "
            f"| {middle['critic/estimate']:.3g} | {middle['critic/estimate_per_slope']:.3g} "
            f"| {middle['peak_step']:.0f} | {middle['distance']:.2f} (worst {worst:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
