"""PSNR: the peak signal-to-noise ratio, by one stated convention, and its negative as a loss.

The convention: images in [-1, 1] are clamped, mapped to [0, 1] and not rounded; data range 1; all channels; at least
fp32; one value for each whole image. Published numbers differ in exactly these points, so the variant on 8-bit images
has a name of its own.
"""

import torch
from torch import Tensor

from smalti.data.grid import to_uint8
from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._reduction import Weighting, at_least_float32, check_same_shape


def psnr(prediction: Tensor, target: Tensor, *, clamp: bool = True, eps: float = 0.0) -> Tensor:
    """10 log10(1 / MSE) of each image in dB, the images mapped from [-1, 1] to [0, 1].

    Args:
        prediction: with shape (B, C, H, W), in [-1, 1].
        target: same shape and range.
        clamp: whether values outside [-1, 1] are first clamped.
        eps: added to the MSE; with 0, equal images have infinitely many dB.

    Returns:
        With shape (B,).

    Raises:
        ValueError: for unequal shapes.

    Example:
        >>> psnr(torch.full((1, 3, 4, 4), 0.2), torch.zeros(1, 3, 4, 4))
        tensor([20.])
    """
    check_same_shape(prediction, target)
    prediction, target = at_least_float32(prediction), at_least_float32(target)
    if clamp:
        prediction, target = prediction.clamp(-1.0, 1.0), target.clamp(-1.0, 1.0)
    squares = ((prediction - target) / 2).square().flatten(1).mean(dim=1)
    return -10.0 * torch.log10(squares + eps)


def psnr_uint8(prediction: Tensor, target: Tensor) -> Tensor:
    """PSNR in dB of each image after both were rounded to 8 bits, data range 255: what saved PNG files would give.

    Args:
        prediction: with shape (B, C, H, W), in [-1, 1].
        target: same shape and range.

    Returns:
        With shape (B,).

    Raises:
        ValueError: for unequal shapes.
    """
    prediction, target = (to_uint8(images).float() / 127.5 - 1.0 for images in (prediction, target))
    return psnr(prediction, target)


class PSNR(ComparisonLoss):
    """The loss -PSNR in dB, so that less is better (PSNR as a loss: Chen et al., arXiv:2105.06086).

    Unlike the metric it does not clamp by default: a clamped pixel would get no gradient.

    Args:
        clamp: whether values outside [-1, 1] are first clamped.
        eps: added to the MSE, keeps the gradient of equal images finite.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: what a weighted mean divides by.
        per_sample: whether the mean is taken of each sample first.
    """

    input_range = (-1.0, 1.0)

    def __init__(
        self,
        *,
        clamp: bool = False,
        eps: float = 1e-8,
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        if eps < 0:
            raise ValueError(f"eps={eps!r}: expected a number >= 0")
        self.clamp = clamp
        self.eps = eps

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """-PSNR with shape (B, 1, 1, 1) of images with shape (B, C, H, W) in [-1, 1]."""
        return -psnr(prediction, target, clamp=self.clamp, eps=self.eps).reshape(-1, 1, 1, 1)
