"""What the losses share that compare images in the features of a frozen network."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from smalti.extractors import Extractor
from smalti.losses._reduction import at_least_float32, check_choice, check_same_shape

Criterion = Literal["l1", "mse"]

# Of the five layers of VGG19 that Real-ESRGAN compares: the shallow ones have large activations.
LAYER_WEIGHTS = (0.1, 0.1, 1.0, 1.0, 1.0)


def mean_difference(prediction: Tensor, target: Tensor, criterion: Criterion) -> Tensor:
    """Mean absolute (``l1``) or squared (``mse``) difference of each sample: (B, ...) to shape (B, 1, 1, 1)."""
    check_same_shape(prediction, target)
    check_choice("criterion", criterion, Criterion)
    difference = at_least_float32(prediction) - at_least_float32(target)
    values = difference.abs() if criterion == "l1" else difference.square()
    return values.flatten(1).mean(dim=1).reshape(-1, 1, 1, 1)


def weighted_layers(
    prediction: Tensor,
    target: Tensor,
    extractor: Extractor,
    layer_weights: Sequence[float],
    criterion: Criterion,
    look: Callable[[Tensor], Tensor],
) -> Tensor:
    """sum_k w_k mean difference of look(f_k), with shape (B, 1, 1, 1); the target is seen without autograd.

    Args:
        prediction: with shape (B, 3, H, W) in [-1, 1].
        target: same shape.
        extractor: the network; its features are f.
        layer_weights: one for each feature; those of weight 0 are left out.
        criterion: ``l1`` or ``mse``.
        look: what is compared of a feature with shape (B, C, h, w) or (B, C).

    Raises:
        ValueError: for unequal shapes, or another number of weights than of features.
    """
    check_same_shape(prediction, target)
    with torch.no_grad():
        goals = extractor(target)
    features = extractor(prediction)
    if len(layer_weights) != len(features):
        raise ValueError(
            f"layer_weights={list(layer_weights)}: the extractor has {len(features)} features, expected as many weights"
        )
    total = torch.zeros(1, 1, 1, 1, device=prediction.device)
    for weight, feature, goal in zip(layer_weights, features, goals, strict=True):
        if weight > 0.0:
            total = total + weight * mean_difference(look(feature), look(goal), criterion)
    return total


def deepest(prediction: Tensor, target: Tensor, extractor: Extractor) -> tuple[Tensor, Tensor]:
    """The last feature of prediction and target, both (B, 3, H, W) in [-1, 1]; the target is seen without autograd."""
    check_same_shape(prediction, target)
    with torch.no_grad():
        goal = extractor(target)[-1]
    return extractor(prediction)[-1], goal


def check_layer_weights(layer_weights: Sequence[float]) -> None:
    """Raises ValueError unless there is a weight > 0 and none < 0."""
    if not layer_weights or min(layer_weights) < 0 or max(layer_weights) == 0:
        raise ValueError(f"layer_weights={list(layer_weights)}: expected numbers >= 0, at least one > 0")
