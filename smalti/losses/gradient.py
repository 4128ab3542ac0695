"""Gradient loss: edges of prediction and target, seen through Sobel filters, should agree."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._reduction import Weighting, check_choice, check_same_shape, reduce
from smalti.nn.constants import constant

Padding = Literal["zeros", "replicate"]

SOBEL = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))


def gradient(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    padding: Padding = "zeros",
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = |S_x (prediction - target)| + |S_y (prediction - target)| with Sobel filters S on each channel, reduced.

    Args:
        prediction: with shape (B, C, H, W), any number of channels.
        target: same shape.
        weight: (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W).
        padding: what lies around the image: with ``zeros`` a difference of brightness is an edge at the border.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for unequal shapes, an unknown option value, or a weight that does not fit.

    Example:
        >>> ramp = torch.arange(4.0).expand(1, 3, 4, 4)
        >>> gradient(ramp, torch.zeros_like(ramp), padding="replicate", reduction="none")[0, 0, 0]
        tensor([4., 8., 8., 4.])
    """
    check_same_shape(prediction, target)
    check_choice("padding", padding, Padding)
    channels = prediction.shape[1]
    sobel = constant(SOBEL, prediction.dtype, prediction.device)
    kernels = torch.stack([sobel, sobel.T]).unsqueeze(1).repeat(channels, 1, 1, 1)
    # The filters are linear: one convolution of the difference is that of both.
    difference = F.pad(prediction - target, [1] * 4, mode="constant" if padding == "zeros" else "replicate")
    edges = F.conv2d(difference, kernels, groups=channels).abs()
    values = edges[:, 0::2] + edges[:, 1::2]
    return reduce(values, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class Gradient(ComparisonLoss):
    """Gradient loss = mean |S_x (prediction - target)| + |S_y (prediction - target)| over (B, C, H, W).

    (Sobel filters S on every channel; as a loss for matting: Tang et al., CVPR 2019, doi:10.1109/CVPR.2019.00317.)

    Args:
        padding: ``zeros`` or ``replicate``; with zeros a difference of brightness is an edge at the border.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    def __init__(
        self,
        *,
        padding: Padding = "zeros",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        check_choice("padding", padding, Padding)
        self.padding: Padding = padding

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """|S_x d| + |S_y d| of the difference d, with shape (B, C, H, W)."""
        return gradient(prediction, target, padding=self.padding, reduction="none")
