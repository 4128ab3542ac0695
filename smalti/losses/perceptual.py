"""Perceptual loss: two images should look alike to a frozen classifier."""

from collections.abc import Sequence

from torch import Tensor

from smalti.extractors import Extractor
from smalti.losses import Reduction
from smalti.losses._features import LAYER_WEIGHTS, Criterion, LayerLoss, weighted_layers
from smalti.losses._range import SIGNED, check_images
from smalti.losses._reduction import Weighting, at_least_float32, reduce


def perceptual(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    extractor: Extractor,
    layer_weights: Sequence[float] = LAYER_WEIGHTS,
    criterion: Criterion = "l1",
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = sum_k w_k mean |f_k(prediction) - f_k(target)|, or of the square, one per sample.

    Args:
        prediction: with shape (B, 3, H, W) in [-1, 1]; grey (B, 1, H, W) is taken as three equal channels.
        target: same shape; it gets no gradient.
        weight: (B,) or (B, 1, 1, 1).
        extractor: the network whose features are f.
        layer_weights: w, one for each feature; the default is for five.
        criterion: ``l1`` compares features by their absolute difference, ``mse`` by its square.
        reduction: ``none`` gives shape (B, 1, 1, 1); ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, which happens anyway.

    Raises:
        ValueError: for unequal shapes, a target outside [-1, 1], images the network cannot take, another number of
            weights than of features, an unknown option value, or a weight that does not fit.
    """
    check_images(prediction, target, SIGNED)
    values = weighted_layers(prediction, target, extractor, layer_weights, criterion, at_least_float32)
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class Perceptual(LayerLoss):
    """Perceptual loss = sum_k w_k mean |f_k(x) - f_k(y)| over features f_k of VGG19 (arXiv:1603.08155).

    (Johnson et al.) Compares images (B, 3, H, W) in [-1, 1], one value per sample; the target is seen without autograd.
    It has no style term: ``style`` is a loss of its own, with its own weight.

    Args:
        extractor: the frozen network; the default is :class:`smalti.extractors.vgg19.VGG19` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
        layer_weights: one for each feature of the extractor.
        criterion: ``l1`` compares features by their absolute difference, ``mse`` by its square.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.

    Example:
        >>> import torch
        >>> from smalti.extractors.vgg19 import VGG19
        >>> loss = Perceptual(extractor=VGG19(weights="random", widths=(4, 4, 8, 8, 8)))
        >>> loss(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16))
        tensor(0.)
    """

    def look(self, feature: Tensor) -> Tensor:
        """The feature as it is, (B, C, h, w) or (B, C), in at least float32."""
        return at_least_float32(feature)
