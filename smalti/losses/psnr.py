"""PSNR: the peak signal-to-noise ratio, by one stated convention, and its negative as a loss.

The convention: images in [-1, 1] are clamped, mapped to [0, 1] and not rounded; data range 1; all channels; at least
fp32; one value for each whole image. Published numbers differ in exactly these points, so the variant on 8-bit images
has a name of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._range import SIGNED, Range, check_images, clamped, ends, floating
from smalti.losses._reduction import Weighting, check_same_shape


def psnr(
    prediction: Tensor,
    target: Tensor,
    *,
    clamp: bool = True,
    eps: float = 0.0,
    data_range: float | Sequence[float] = SIGNED,
) -> Tensor:
    """10 log10(1 / MSE) of each image in dB, the images mapped from the data range to [0, 1].

    Args:
        prediction: with shape (B, C, H, W), in [-1, 1] unless ``data_range`` says otherwise.
        target: same shape and range.
        clamp: whether values outside the range are first clamped; a prediction that is not finite has nan dB.
        eps: added to the MSE; with 0, equal images have infinitely many dB.
        data_range: the range of the images: (low, high), or R for [0, R]. With 255 images may be whole numbers.

    Returns:
        With shape (B,).

    Raises:
        ValueError: for unequal shapes, a target outside the range, or whole numbers in a range of [-1, 1].

    Example:
        >>> psnr(torch.full((1, 3, 4, 4), 0.2), torch.zeros(1, 3, 4, 4))
        tensor([20.])
        >>> psnr(torch.full((1, 3, 4, 4), 25.5), torch.zeros(1, 3, 4, 4), data_range=255)
        tensor([20.])
    """
    allowed = ends(data_range)
    check_images(prediction, target, allowed)
    return _decibels(prediction, target, allowed, clamp, eps)


def _decibels(prediction: Tensor, target: Tensor, allowed: Range, clamp: bool, eps: float) -> Tensor:
    """PSNR with shape (B,) of images with shape (B, C, H, W) in the range ``allowed``, unchecked."""
    check_same_shape(prediction, target)
    prediction, target = floating(prediction), floating(target)
    if clamp:
        prediction, target = clamped(prediction, allowed), clamped(target, allowed)
    squares = ((prediction - target) / (allowed[1] - allowed[0])).square().flatten(1).mean(dim=1)
    return -10.0 * torch.log10(squares + eps)


def psnr_uint8(prediction: Tensor, target: Tensor, *, data_range: float | Sequence[float] = SIGNED) -> Tensor:
    """PSNR in dB of each image after both were rounded to 8 bits, data range 255: what saved PNG files would give.

    Args:
        prediction: with shape (B, C, H, W), in [-1, 1] unless ``data_range`` says otherwise.
        target: same shape and range.
        data_range: the range of the images: (low, high), or R for [0, R]. With 255 images may be 8-bit already.

    Returns:
        With shape (B,).

    Raises:
        ValueError: as ``psnr``.
    """
    allowed = ends(data_range)
    check_images(prediction, target, allowed)
    scale = 255.0 / (allowed[1] - allowed[0])
    one, other = (((clamped(floating(of), allowed) - allowed[0]) * scale).round() for of in (prediction, target))
    return _decibels(one, other, (0.0, 255.0), clamp=False, eps=0.0)


class PSNR(ComparisonLoss):
    """The loss -PSNR in dB, so that less is better (PSNR as a loss: Chen et al., arXiv:2105.06086).

    Unlike the metric it does not clamp by default: a clamped pixel would get no gradient.

    Args:
        clamp: whether values outside [-1, 1] are first clamped.
        eps: added to the MSE, keeps the gradient of equal images finite.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    input_range = SIGNED

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
        return -_decibels(prediction, target, SIGNED, self.clamp, self.eps).reshape(-1, 1, 1, 1)
