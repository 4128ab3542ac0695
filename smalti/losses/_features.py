"""What the losses share that compare images in the features of a frozen network."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._images import Channels, chosen, seen
from smalti.extractors.vgg19 import VGG19
from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._range import SIGNED
from smalti.losses._reduction import Weighting, at_least_float32, check_choice, check_same_shape

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


class FeatureLoss(ComparisonLoss):
    """Base of the losses that compare images as a frozen network sees them, one value per sample.

    Args:
        extractor: the frozen network; the default is ``network`` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    input_range = SIGNED
    network: ClassVar[type[Extractor]]

    def __init__(
        self,
        *,
        extractor: Extractor | None = None,
        channels: Channels | None = None,
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        self.extractor = self.network() if extractor is None else extractor
        self.channels = chosen(channels)

    @abstractmethod
    def distances(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each sample, of the chosen channels with shape (B, 3, H, W) to shape (B, 1, 1, 1)."""

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each sample, with shape (B, 1, 1, 1)."""
        return self.distances(seen(prediction, self.channels), seen(target, self.channels))


class LayerLoss(FeatureLoss):
    """Base of the losses that look at several layers of VGG19: ``perceptual`` and ``style``.

    Args:
        extractor: the frozen network; the default is :class:`smalti.extractors.vgg19.VGG19` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
        layer_weights: one for each feature of the extractor.
        criterion: ``l1`` or ``mse``.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    network = VGG19

    def __init__(
        self,
        *,
        extractor: Extractor | None = None,
        channels: Channels | None = None,
        layer_weights: Sequence[Annotated[float, Field(ge=0)]] = LAYER_WEIGHTS,
        criterion: Criterion = "l1",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        check_layer_weights(layer_weights)
        check_choice("criterion", criterion, Criterion)
        super().__init__(
            extractor=extractor, channels=channels, reduction=reduction, weighting=weighting, per_sample=per_sample
        )
        self.layer_weights = tuple(layer_weights)
        self.criterion: Criterion = criterion

    @abstractmethod
    def look(self, feature: Tensor) -> Tensor:
        """What is compared of a feature with shape (B, C, h, w) or (B, C)."""

    def distances(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The weighted sum over layers for each sample, (B, 3, H, W) to shape (B, 1, 1, 1)."""
        return weighted_layers(prediction, target, self.extractor, self.layer_weights, self.criterion, self.look)
