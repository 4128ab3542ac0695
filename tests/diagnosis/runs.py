"""The log of a run that never was: healthy in every respect, until something is set on it."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

Value = float | Callable[[int], float]

RECIPE: dict[str, Any] = {
    "objective": {
        "generator": {"l1": {"type": "l1"}, "near": {"type": "commitment"}, "spread": {"type": "entropy"}},
    },
    "model": {"bottleneck": {"codebooks": {"fine": {"quantizer": {"type": "residual"}}}}},
    "engine": {"max_steps": 1000},
    "data": {"batch_size": 16},
    "optim": {"generator": {"warmup": 10}},
}
G, D, BOOK, OTHER = "train/generator/", "train/discriminator/", "train/codebook/look/", "train/codebook/more/"

HEALTHY: Mapping[str, Value] = {
    f"{G}total": 1.0,
    f"{G}fit": lambda step: 0.2 + 0.8 * 0.98**step,
    f"{G}fit_max": lambda step: 1.2 * (0.2 + 0.8 * 0.98**step),
    f"{G}l1/weighted": 0.8,
    f"{G}near/weighted": 0.15,
    f"{G}spread/weighted": -0.05,
    f"{G}adversarial/adaptive": 0.7,
    f"{G}adversarial/clamped": 0.0,
    f"{G}gradient_norm/adversarial": 0.2,
    f"{G}update_ratio": 2e-3,
    f"{G}likelihood/log_scale": -2.0,
    f"{G}batch_norm": 3.0,
    f"{G}clip_active": 1.0,
    f"{G}clip_depth": 2.0,
    f"{D}total": 0.6,
    f"{D}logits_real": 0.3,
    f"{D}logits_fake": -0.4,
    f"{D}critic/accuracy_real": 0.9,
    f"{D}critic/accuracy_fake": 0.8,
    f"{D}critic/slope_max": 1.0,
    f"{D}critic/diversity": 0.9,
    f"{D}critic/apart": 1.1,
    "train/image/min": -1.0,
    "train/image/max": 1.0,
    "train/image/deviation": 0.5,
    "train/image/constant": 0.02,
    "train/image/difference": 0.4,
    "train/image/colour": 0.1,
    "train/tokens/look/codes": 64.0,
    "train/tokens/look/highest": 60.0,
    "train/tokens/look/different": 50.0,
    "train/tokens/look/distinct": 0.8,
    "train/tokens/look/agree": 0.2,
    "train/label/min": 0.0,
    "train/label/max": 9.0,
    "train/label/seen": lambda step: 16.0 * step,
    "train/teacher/look/variation": 0.3,
    f"{BOOK}usage": 0.9,
    f"{BOOK}perplexity": lambda step: 40.0 + step % 3,
    f"{BOOK}reachable": 64.0,
    f"{BOOK}reachable_share": 1.0,
    f"{BOOK}norm_ratio": 1.1,
    f"{BOOK}error": 0.2,
    f"{BOOK}revival_patience": 20.0,
    f"{OTHER}usage": 0.9,
    f"{OTHER}perplexity": 50.0,
    f"{OTHER}reachable": 64.0,
    f"{OTHER}reachable_share": 1.0,
    f"{OTHER}norm_ratio": 0.9,
    f"{OTHER}error": 0.2,
    "train/posterior/kl": 2.0,
    "train/posterior/active": 1.0,
    "train/ema/initial": lambda step: 0.99**step,
    "train/ema/decay": 0.99,
    "train/ema/distance": 0.1,
    "data_wait": 0.1,
    "memory": lambda step: 500.0 + min(step, 40),
}


def log_of(changes: Mapping[str, Value | None] | None = None, steps: int = 200, every: int = 10) -> Iterator[Any]:
    """Log records of a run with what is changed in it; None takes a number out.

    Names that begin with ``val/`` make a validation of their own after each fifth log step.
    """
    values = {**HEALTHY, **(changes or {})}
    for step in (1, *range(every, steps + 1, every)):
        now = {n: v(step) if callable(v) else v for n, v in values.items() if v is not None}
        head = {"step": step, "images": 16 * step}
        yield head | {name: value for name, value in now.items() if not name.startswith("val/")}
        measured = {name: value for name, value in now.items() if name.startswith("val/")}
        if measured and step % (2 * every) == 0:
            yield head | measured
