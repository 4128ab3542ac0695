"""Face identity loss: two portraits should show the same person."""

from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors.arcface import ArcFace as Network
from smalti.losses import Reduction
from smalti.losses._features import FeatureLoss, deepest
from smalti.losses._range import SIGNED, check_images
from smalti.losses._reduction import Weighting, at_least_float32, reduce
from smalti.nn.unit import unit


def face_id(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    extractor: Extractor,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = 1 - cos(f(prediction), f(target)), one per sample, in [0, 2].

    Args:
        prediction: with shape (B, 3, H, W) in [-1, 1], aligned portraits, or grey with shape (B, 1, H, W).
        target: same shape; it gets no gradient.
        weight: (B,) or (B, 1, 1, 1).
        extractor: the network whose deepest feature is f.
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
    feature, goal = deepest(prediction, target, extractor)
    one, other = (unit(at_least_float32(of).flatten(1)) for of in (feature, goal))
    return (1.0 - (one * other).sum(dim=1)).reshape(-1, 1, 1, 1)


class FaceId(FeatureLoss):
    """Face identity loss = 1 - cos(f(x), f(y)) of the embeddings of ArcFace (Richardson et al., arXiv:2008.00951).

    Compares aligned portraits (B, 3, H, W) in [-1, 1], one value per sample; the target is seen without autograd.

    Args:
        extractor: the frozen network; by default :class:`smalti.extractors.arcface.ArcFace` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.

    Example:
        >>> import torch
        >>> loss = FaceId(extractor=Network(weights="random", widths=(4, 4, 8, 8), blocks=(1, 1, 1, 1)))
        >>> loss(torch.ones(2, 3, 16, 16), torch.ones(2, 3, 16, 16)).item() < 1e-6
        True
    """

    network = Network

    def distances(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each sample, (B, 3, H, W) to shape (B, 1, 1, 1)."""
        return _distances(prediction, target, self.extractor)
