"""LPIPS: the distance of two images in the features of a frozen network, trained to agree with human judgement."""

import torch
from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors import lpips as features
from smalti.losses import Reduction
from smalti.losses._features import FeatureLoss
from smalti.losses._range import SIGNED, check_images
from smalti.losses._reduction import Weighting, at_least_float32, check_same_shape, reduce


def lpips(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    extractor: Extractor,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = sum over layers of mean over positions of |features(prediction) - features(target)|^2, one per sample.

    Args:
        prediction: with shape (B, 3, H, W) in [-1, 1]; grey (B, 1, H, W) is taken as three equal channels.
        target: same shape; it gets no gradient.
        weight: (B,) or (B, 1, 1, 1).
        extractor: the network, :class:`smalti.extractors.lpips.LPIPS`.
        reduction: ``none`` gives shape (B, 1, 1, 1); ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, which happens anyway.

    Raises:
        ValueError: for unequal shapes, a target outside [-1, 1], images the network cannot take, or a weight that does
            not fit.
    """
    check_images(prediction, target, SIGNED)
    values = _distances(prediction, target, extractor)
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


def _distances(prediction: Tensor, target: Tensor, extractor: Extractor) -> Tensor:
    """The distance of each sample, (B, 3, H, W) to shape (B, 1, 1, 1), unchecked."""
    check_same_shape(prediction, target)
    with torch.no_grad():
        goals = extractor(target)
    distances = torch.zeros((), device=prediction.device)
    for feature, goal in zip(extractor(prediction), goals, strict=True):
        squares = (at_least_float32(feature) - at_least_float32(goal)).square()
        distances = distances + squares.sum(dim=1).reshape(squares.shape[0], -1).mean(dim=1)
    return distances.view(-1, 1, 1, 1)


class LPIPS(FeatureLoss):
    """LPIPS = sum_layers mean_positions sum_channels w (f_x - f_y)^2, f unit VGG16 features (arXiv:1801.03924).

    (Zhang et al.) Compares images (B, 3, H, W) in [-1, 1] of at least 16 x 16 pixels, one value per sample. The target
    is seen without autograd.

    Args:
        extractor: the frozen network; the default is :class:`smalti.extractors.lpips.LPIPS` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.

    Example:
        >>> loss = LPIPS(extractor=features.LPIPS(weights="random", widths=(4, 4, 8, 8, 8)))
        >>> loss(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))
        tensor(0.)
    """

    network = features.LPIPS

    def distances(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each sample, (B, 3, H, W) to shape (B, 1, 1, 1)."""
        return _distances(prediction, target, self.extractor)
