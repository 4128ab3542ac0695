"""Optimizers and learning rates: what decays, and how fast each phase moves at a generator step."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim import RMSprop as TorchRMSprop

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
    rate, betas = lazy_adam(spec.lr, spec.betas, spec.lazy_adam)
    if spec.type == "rmsprop":
        return RMSprop(groups, lr=rate, alpha=spec.alpha, eps=spec.eps, weight_decay=spec.weight_decay)
    kind = Adam if spec.type == "adam" else AdamW
    return kind(groups, lr=rate, betas=betas, eps=spec.eps, weight_decay=spec.weight_decay, fused=True)


class RMSprop(TorchRMSprop):
    """torch's RMSprop that, like its fused Adam, changes nothing where ``found_inf`` is not zero."""

    found_inf: Tensor | None = None

    def step(self, closure: Any = None) -> Any:
        """One step, or none; a GPU decides by itself, at the price of copies."""
        bad = self.found_inf
        if bad is None:
            return super().step(closure)
        if bad.device.type == "cpu":
            return None if bad.item() else super().step(closure)
        kept = [(parameter, parameter.detach().clone()) for group in self.param_groups for parameter in group["params"]]
        moments = {id(p): p for state in self.state.values() for p in state.values() if isinstance(p, Tensor)}
        kept += [(moment, moment.clone()) for moment in moments.values()]
        super().step(closure)
        with torch.no_grad():
            for tensor, copy in kept:
                tensor.copy_(torch.where(bad.to(tensor.device) > 0, copy, tensor))
        return None


def lazy_adam(lr: float, betas: tuple[float, float], every: int | None) -> tuple[float, tuple[float, float]]:
    """Rate and betas of a phase whose lazy term comes at every ``every``-th update (Karras et al., arXiv:1912.04958).

    >>> rate, betas = lazy_adam(2e-3, (0.0, 0.99), 16)
    >>> round(rate, 6), betas[0], round(betas[1], 6)
    (0.001882, 0.0, 0.990585)
    """
    if every is None:
        return lr, betas
    share = every / (every + 1)
    return lr * share, (betas[0] ** share, betas[1] ** share)


def learning_rate(spec: PhaseOptimizer, step: int, max_steps: int) -> float:
    """The learning rate of the update that begins after ``step`` generator updates.

    >>> spec = PhaseOptimizer(lr=1.0, warmup=2, lr_schedule="linear")
    >>> [learning_rate(spec, step, 6) for step in range(7)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    peak, _ = lazy_adam(spec.lr, spec.betas, spec.lazy_adam)
    if step < spec.warmup:
        return peak * (step + 1) / spec.warmup
    if spec.lr_schedule == "constant":
        return peak
    length = max((spec.lr_steps or max_steps) - spec.warmup, 1)
    done = min((step - spec.warmup) / length, 1.0)
    if spec.lr_schedule == "exponential":
        return peak * math.pow(spec.lr_end, done)
    left = 1.0 - done if spec.lr_schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
    return peak * (spec.lr_end + (1.0 - spec.lr_end) * left)


def moved_rates(stored: Mapping[str, Any], new: Mapping[str, Any], step: int) -> list[str]:
    """Learning rates that another ``max_steps`` would move, a line each: those of schedules without ``lr_steps``.

    Args:
        stored: the resolved recipe that a run was started with.
        new: the one that is to go on with it.
        step: where the run stands.
    """
    before, after = (recipe.get("engine", {}).get("max_steps") for recipe in (stored, new))
    found = []
    for phase, options in new.get("optim", {}).items():
        if not isinstance(options, Mapping) or before is None or before == after:
            continue
        written: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
        spec = PhaseOptimizer(**written)
        if spec.lr_schedule == "constant" or spec.lr_steps is not None:
            continue
        was, would = (learning_rate(spec, step, steps) for steps in (before, after))
        found.append(
            f"optim.{phase} ({spec.lr_schedule}): at step {step} the rate was {was:.3g} and would be {would:.3g}"
        )
    return found
