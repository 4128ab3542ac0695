"""Three codebooks against one of the same size, and what the disentanglement term does to their angles.

    python benchmarks/codebooks.py --steps 600 --seeds 3 --out runs/codebooks

trains four small tokenizers for each seed on the packaged photos, without the cat, and measures them on the cat. It
prints a table in Markdown: means over seeds, smallest and largest in brackets.
"""

import argparse
import statistics
from pathlib import Path

import torch
import yaml

import smalti
from smalti.data.loader import evaluation_batches, to_device
from smalti.data.photos import Photos
from smalti.data.transforms import Transform
from smalti.losses.disentangle import cosines

CODE = {
    "quantizer": {
        "type": "nearest",
        "size": 256,
        "channels": 8,
        "normalize": True,
        "init": "kmeans",
        "ema": {"decay": 0.99},
        "revival": {"patience": 100},
    },
    "adapter": {"grid": 12, "layers": 1, "heads": 4, "out_channels": 64, "norm": "none"},
}
BACKBONE = {
    "type": "conv",
    "patch_size": 4,
    "channels": 64,
    "multipliers": [1],
    "norm": "none",
    "middle_blocks": 0,
    "middle_attention": False,
}
VARIANTS = {
    "one codebook": (["visual"], None),
    "three codebooks": (["visual", "mid", "high"], None),
    "three, disentangle 0.1": (["visual", "mid", "high"], 0.1),
    "three, disentangle 1.0": (["visual", "mid", "high"], 1.0),
}


def recipe(names: list[str], disentangle: float | None, steps: int, seed: int) -> dict:
    generator = {
        "l1": {"type": "l1"},
        "mse": {"type": "mse"},
        "commitment": {"type": "commitment", "weight": 0.25},
    }
    if disentangle is not None:
        generator["disentangle"] = {"type": "disentangle", "weight": disentangle}
    return {
        "model": {
            "type": "autoencoder",
            "encoder": {**BACKBONE, "out_channels": None},
            "bottleneck": {"type": "tokens", "in_channels": 64, "codebooks": {name: CODE for name in names}},
            "decoder": {**BACKBONE, "latent_channels": 8 * len(names), "z_channels": 64},
        },
        "objective": {"generator": generator},
        "data": {
            "source": {"type": "photos", "exclude": ["chelsea"]},
            "transform": {"size": 48, "crop": "random", "flip": True},
            "batch_size": 16,
        },
        "optim": {"generator": {"lr": 2.0e-3, "betas": [0.9, 0.99], "lr_schedule": "cosine", "warmup": 50}},
        "validation": {
            "data": {"source": {"type": "photos", "include": ["chelsea"]}, "batch_size": 1},
            "every": steps,
            "metrics": ["psnr", "codebook_usage", "bits_per_image", "codebook_mutual_information"],
        },
        "engine": {"max_steps": steps, "seed": seed, "log_every": 100},
    }


def angles(model: torch.nn.Module) -> float:
    """Mean |cos| between the codes of different codebooks on the cat; not a number for one codebook."""
    batch = next(iter(evaluation_batches(Photos(include=["chelsea"]), Transform(), 1)))
    image = to_device(dict(batch), torch.device("cpu"))["image"]
    height, width = (side // model.factor * model.factor for side in image.shape[-2:])
    with torch.no_grad():
        records = list(model.encode(image[..., :height, :width]).codebooks.values())
    pairs = [(a, b) for i, a in enumerate(records) for b in records[i + 1 :]]
    found = [cosines(a.latent, b.latent).abs().mean().item() for a, b in pairs]
    return statistics.mean(found) if found else float("nan")


def measure(name: str, steps: int, seed: int, out: Path) -> dict[str, float]:
    folder = out / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(recipe(*VARIANTS[name], steps, seed), sort_keys=False))
    values = smalti.train(path, out=folder, quiet=True).evaluation
    information = [value for key, value in values.items() if key.startswith("codebook_mutual_information/")]
    chance = [value for key, value in values.items() if key.startswith("codebook_mutual_information_chance/")]
    return {
        "psnr": values["psnr"],
        "bits": values["bits_per_image"],
        "effective": values["bits_per_image_effective"],
        "cos": angles(smalti.load(folder)),
        "information": statistics.mean(information) - statistics.mean(chance) if chance else float("nan"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/codebooks"))
    arguments = parser.parse_args()
    print("| tokenizer | PSNR, dB | bits per image | of these effective | mean abs cos | shared bits above chance |")
    print("|---|---|---|---|---|---|")
    for name in VARIANTS:
        rows = [measure(name, arguments.steps, seed, arguments.out) for seed in range(arguments.seeds)]
        cells = []
        for key, digits in (("psnr", 2), ("bits", 0), ("effective", 0), ("cos", 3), ("information", 2)):
            of = [row[key] for row in rows]
            spread = f" ({min(of):.{digits}f} to {max(of):.{digits}f})" if min(of) < max(of) else ""
            cells.append("-" if of[0] != of[0] else f"{statistics.mean(of):.{digits}f}{spread}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
