"""A run folder as the engine would write it, without an engine."""

import json
import math
from pathlib import Path

from PIL import Image


def record(step: int, start: int) -> dict[str, float | int | str]:
    adversary = 0.1 if step >= start else 0.0
    decay = math.exp(-step / 400)
    return {
        "step": step,
        "images": 16 * step,
        "seconds": 0.02 * step,
        "images_per_second": 800.0,
        "train/generator/total": 0.05 + 0.3 * decay,
        "train/generator/pixel/raw": 0.04 + 0.3 * decay,
        "train/generator/pixel/weight": 1.0,
        "train/generator/pixel/weighted": 0.04 + 0.3 * decay,
        "train/generator/commitment/raw": 0.02 + 0.1 * decay,
        "train/generator/commitment/weight": 0.25,
        "train/generator/commitment/weighted": 0.25 * (0.02 + 0.1 * decay),
        "train/generator/adversarial/raw": 0.3,
        "train/generator/adversarial/weight": adversary,
        "train/generator/adversarial/weighted": -adversary * 0.3,
        "train/generator/adversarial/status": "active" if adversary else "waiting",
        "train/generator/gradient_norm/adversarial_share": adversary * 1.2,
        "train/discriminator/logits_real": 0.4,
        "train/discriminator/logits_fake": -0.4,
        "train/codebook/code/usage": 1 - 0.7 * decay,
        "train/codebook/code/perplexity": 400 - 300 * decay,
        **({"val/psnr": 31 - 12 * decay} if step % 400 == 0 else {}),
    }


def write_run(folder: Path, *, steps: int = 2000, every: int = 100, start: int = 1000) -> Path:
    """Writes recipe, metrics, evaluation and three sample pictures."""
    (folder / "samples").mkdir(parents=True)
    (folder / "recipe.yaml").write_text("model:\n  type: autoencoder # <b>\n")
    lines = [json.dumps(record(step, start)) for step in range(every, steps + 1, every)]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    evaluation = {
        "psnr": 31.234,
        "ssim": 0.91234,
        "codebook_usage": 0.512,
        "bits_per_image": 9000.0,
        "seconds": 120.4,
        "images": ["chelsea"],
        "objective": {"generator/pixel/raw": 0.0421},
    }
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    for step in (0, steps // 2, steps):
        Image.new("RGB", (64, 32), (step % 255, 90, 120)).save(folder / "samples" / f"{step:08d}.png")
    return folder
