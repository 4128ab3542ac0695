"""How one value per element becomes a loss: reductions, and the two meanings of a weighted mean.

Libraries call two different things "weighted loss". Here they have names: ``weighted_mean`` divides by the sum of the
weights (a mask leaves the scale of the loss alone), ``mean_of_weighted`` divides by the number of elements (a weight
is an importance: halving all weights halves the loss).
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from smalti.losses import Reduction

Weighting = Literal["weighted_mean", "mean_of_weighted"]

# What a weighted mean looks at of a batch as a whole.
WEIGHTS: Mapping[str, str] = {"weight": "under a `weight` with `weighting: weighted_mean` the sum of the weights"}

# Keeps an empty mask at loss 0 and gradient 0 instead of 0 / 0.
EMPTY_MASK_EPS = 1e-12


def reduce(
    values: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """Reduces values l with shape (B, ...) under weights w to a scalar, or leaves them unreduced.

    ======================================  ============================================
    ``none``                                w l, with the shape of l
    ``sum``                                 sum(w l)
    ``batch_sum``                           sum(w l) / B: sum over pixels, mean over images
    ``mean``, ``weighted_mean``             sum(w l) / (sum(w broadcast to l) + 1e-12)
    ``mean``, ``mean_of_weighted``          sum(w l) / number of elements
    ``mean``, ``per_sample``                the mean as above for each sample, then over samples
    ======================================  ============================================

    A sample whose mask is empty counts as 0 in ``per_sample``.

    Args:
        values: with shape (B, ...).
        weight: see :func:`broadcast_weight`; None weighs every element 1.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: what a weighted mean divides by; ``mean`` only.
        per_sample: whether each sample is averaged by itself first; ``mean`` only.

    Raises:
        ValueError: for an unknown option value, ``per_sample`` without ``mean``, or a weight that does not fit.

    Example:
        >>> values, mask = torch.tensor([[1.0, 3.0]]), torch.tensor([[1.0, 0.0]])
        >>> reduce(values, mask)
        tensor(1.)
        >>> reduce(values, mask, weighting="mean_of_weighted")
        tensor(0.5000)
    """
    check_reduction(reduction, weighting, per_sample)
    if weight is not None:
        weight = broadcast_weight(weight, values)
        values = values * weight
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    if reduction == "batch_sum":
        return values.sum() / values.shape[0]
    if weight is None or weighting == "mean_of_weighted":
        return values.mean()
    if per_sample:
        sums, weights = values.flatten(1).sum(dim=1), weight.expand_as(values).flatten(1).sum(dim=1)
        return (sums / (weights + EMPTY_MASK_EPS)).mean()
    return values.sum() / (weight.expand_as(values).sum() + EMPTY_MASK_EPS)


def weight_statistics(weighting: str, reduction: str = "mean", per_sample: bool = False) -> Mapping[str, str]:
    """``WEIGHTS`` where :func:`reduce` divides by the sum of the weights of a whole batch, else nothing."""
    return WEIGHTS if reduction == "mean" and weighting == "weighted_mean" and not per_sample else {}


def broadcast_weight(weight: Tensor, values: Tensor, name: str = "weight") -> Tensor:
    """``weight`` in the dtype of ``values`` and with as many axes, ready to be multiplied with them.

    Args:
        weight: one per sample (B,) or (B, 1, ..., 1), one per position (B, 1, H, W), or one per element (B, C, H, W).
        values: with shape (B, C, H, W), or with any other number of axes of which the first is the batch.
        name: of the weight, for the message.

    Raises:
        ValueError: for any other shape; broadcasting a (1, C, H, W) or (H, W) map by accident is the usual mistake.
    """
    batch, axes = values.shape[0], values.ndim
    per_sample = (batch, *[1] * (axes - 1))
    if weight.shape[:1] == (batch,) and weight.numel() == batch:
        return weight.reshape(per_sample).to(values.dtype)
    allowed = [(batch,), per_sample, (batch, 1, *values.shape[2:]), tuple(values.shape)]
    if tuple(weight.shape) not in allowed:
        shapes = " or ".join(str(shape) for shape in dict.fromkeys(allowed))
        raise ValueError(f"{name} with shape {tuple(weight.shape)}: expected shape {shapes}")
    return weight.to(values.dtype)


def check_reduction(reduction: str, weighting: str, per_sample: bool) -> None:
    """Raises ValueError for a value that is no reduction or weighting, or for two that exclude each other."""
    check_choice("reduction", reduction, Reduction)
    check_choice("weighting", weighting, Weighting)
    if per_sample and reduction != "mean":
        raise ValueError(f"per_sample=True: expected reduction='mean', got reduction={reduction!r}")


def check_choice(name: str, value: object, choices: Any) -> None:
    """Raises ValueError if ``value`` is none of the values of the ``Literal`` type ``choices``."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: expected {', '.join(repr(choice) for choice in allowed)}")


def check_same_shape(prediction: Tensor, target: Tensor) -> None:
    """Raises ValueError unless both have the same shape (B, ...); silent broadcasting hides mistakes."""
    if prediction.shape != target.shape:
        raise ValueError(f"prediction has shape {tuple(prediction.shape)}, target {tuple(target.shape)}: must be equal")


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` in float32 if they were in a half precision; sums of squares lose too much there. Keeps the shape."""
    return values.float() if values.dtype in {torch.float16, torch.bfloat16} else values


def check_label(name: str, value: float) -> None:
    """Raises ValueError unless ``value`` is a probability; softened labels of a classifier are."""
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"{name}={value}: expected a number in [0, 1]")
