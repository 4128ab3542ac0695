"""Optimizers and learning rates: what decays, and how fast each phase moves at a generator step."""

import math

from torch import nn
from torch.optim import Adam, AdamW, Optimizer

from smalti.engine.settings import PhaseOptimizer


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Two groups of trainable parameters: kernels, matrices and codes decay; norms, biases and learned scales do not.

    The rule is the number of axes longer than one: whatever has fewer than two is a gain, a bias or a scale, also
    ActNorm's with shape (1, C, 1, 1).
    """
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trainable if _is_kernel(p)], "weight_decay": weight_decay},
        {"params": [p for p in trainable if not _is_kernel(p)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _is_kernel(parameter: nn.Parameter) -> bool:
    return sum(size > 1 for size in parameter.shape) >= 2


def build_optimizer(module: nn.Module, spec: PhaseOptimizer) -> Optimizer:
    """The fused optimizer of the trainable parameters of ``module``, which must be on their device already.

    Raises:
        ValueError: if nothing in ``module`` can be trained.
    """
    groups = parameter_groups(module, spec.weight_decay)
    if not groups:
        raise ValueError(f"{type(module).__name__} has no parameter to train")
    kind = Adam if spec.type == "adam" else AdamW
    return kind(groups, lr=spec.lr, betas=spec.betas, eps=spec.eps, weight_decay=spec.weight_decay, fused=True)


def learning_rate(spec: PhaseOptimizer, step: int, max_steps: int) -> float:
    """The learning rate of the update that begins after ``step`` generator updates.

    >>> spec = PhaseOptimizer(lr=1.0, warmup=2, lr_schedule="linear")
    >>> [learning_rate(spec, step, 6) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    if step < spec.warmup:
        return spec.lr * (step + 1) / spec.warmup
    if spec.lr_schedule == "constant":
        return spec.lr
    length = max((spec.lr_steps or max_steps) - spec.warmup, 1)
    done = min((step - spec.warmup) / length, 1.0)
    left = 1.0 - done if spec.lr_schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return spec.lr * (spec.lr_end + (1.0 - spec.lr_end) * left)
