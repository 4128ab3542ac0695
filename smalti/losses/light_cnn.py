"""LightCNN loss: two faces should look alike to a frozen face network."""

from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._images import Channels
from smalti.extractors.light_cnn import LightCNN as Network
from smalti.losses import Reduction
from smalti.losses._features import Criterion, FeatureLoss, deepest, mean_difference
from smalti.losses._range import SIGNED, check_images
from smalti.losses._reduction import Weighting, check_choice, reduce


def light_cnn(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    extractor: Extractor,
    criterion: Criterion = "l1",
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = mean |f(prediction) - f(target)|, or of the square, one per sample.

    Args:
        prediction: with shape (B, 3, H, W) in [-1, 1]; grey (B, 1, H, W) is taken as three equal channels.
        target: same shape; it gets no gradient.
        weight: (B,) or (B, 1, 1, 1).
        extractor: the network whose deepest feature is f.
        criterion: ``l1`` compares features by their absolute difference, ``mse`` by its square.
        reduction: ``none`` gives shape (B, 1, 1, 1); ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, which happens anyway.

    Raises:
        ValueError: for unequal shapes, a target outside [-1, 1], images the network cannot take, an unknown option
            value, or a weight that does not fit.
    """
    check_images(prediction, target, SIGNED)
    feature, goal = deepest(prediction, target, extractor)
    values = mean_difference(feature, goal, criterion)
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class LightCNN(FeatureLoss):
    """LightCNN loss = mean |f(x) - f(y)| of the last features of LightCNN (Ma et al., arXiv:2003.13063).

    Compares faces (B, 3, H, W) in [-1, 1], one value per sample; the target is seen without autograd.

    Args:
        extractor: the frozen network; by default :class:`smalti.extractors.light_cnn.LightCNN` with pretrained weights.
        channels: which channels of the images it sees, counted from 0; None: all of them, one or three.
        criterion: ``l1`` compares features by their absolute difference, ``mse`` by its square.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.

    Example:
        >>> import torch
        >>> loss = LightCNN(extractor=Network(weights="random"))
        >>> loss(torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 16, 16)).item() < 1e-6
        True
    """

    network = Network

    def __init__(
        self,
        *,
        extractor: Extractor | None = None,
        channels: Channels | None = None,
        criterion: Criterion = "l1",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        check_choice("criterion", criterion, Criterion)
        super().__init__(
            extractor=extractor, channels=channels, reduction=reduction, weighting=weighting, per_sample=per_sample
        )
        self.criterion: Criterion = criterion

    def distances(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each sample, (B, 3, H, W) to shape (B, 1, 1, 1)."""
        return mean_difference(*deepest(prediction, target, self.extractor), self.criterion)
