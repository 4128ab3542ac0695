"""MS-SSIM: structural similarity at several resolutions (Wang et al., 2003, doi:10.1109/ACSSC.2003.1292216)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._range import SIGNED, check_images, ends
from smalti.losses._reduction import Weighting, check_choice
from smalti.losses._structure import Border, check_window, similarity_maps, unit_images
from smalti.losses.ssim import smallest_side
from smalti.registry import UserError

Negative = Literal["zero", "shift"]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(
    prediction: Tensor,
    target: Tensor,
    *,
    clamp: bool = True,
    scale_weights: Sequence[float] = SCALE_WEIGHTS,
    window: int = 11,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    border: Border = "reflect",
    negative: Negative = "zero",
    data_range: float | Sequence[float] = SIGNED,
) -> Tensor:
    """Product over scales of s_k^w_k, the images mapped from the data range to [0, 1] and halved from scale to scale.

    s_k is the mean structure of the windows inside the image, at the last scale the mean SSIM. The power of a negative
    one is no number: it counts as 0 (``zero``, torchmetrics' ``relu``), or all s are first mapped to (s + 1) / 2
    (``shift``, torchmetrics' ``simple``).

    Args:
        prediction: with shape (B, C, H, W), in [-1, 1] unless ``data_range`` says otherwise.
        target: same shape and range.
        clamp: whether values outside the range are first clamped; a prediction that is not finite gives nan.
        scale_weights: the exponents w, finest scale first; their number is the number of scales.
        window: side of the window in pixels, odd.
        sigma: standard deviation of the Gaussian in pixels.
        k1: stabilises the comparison of means.
        k2: stabilises the comparison of variances.
        border: of the last scale: ``reflect`` (as torchmetrics) or ``valid`` (as Wang).
        negative: what becomes of negative similarities, ``zero`` or ``shift``.
        data_range: the range of the images: (low, high), or R for [0, R]. With 255 images may be whole numbers.

    Returns:
        With shape (B,), in [0, 1].

    Raises:
        ValueError: for unequal shapes, a target outside the range, or whole numbers in a range of [-1, 1].
        UserError: for images too small for the windows of the coarsest scale.

    Example:
        >>> image = torch.linspace(-1, 1, 1024).reshape(1, 1, 32, 32)
        >>> ms_ssim(image, image, scale_weights=(0.5, 0.5))
        tensor([1.])
    """
    allowed = ends(data_range)
    check_window(window, sigma, k1, k2, border)
    check_images(prediction, target, allowed)
    x, y = unit_images(prediction, target, allowed, clamp)
    return _product(
        x, y, scale_weights=scale_weights, window=window, sigma=sigma, k1=k1, k2=k2, border=border, negative=negative
    )


def _product(
    x: Tensor,
    y: Tensor,
    *,
    scale_weights: Sequence[float],
    window: int,
    sigma: float,
    k1: float,
    k2: float,
    border: Border,
    negative: Negative,
) -> Tensor:
    """MS-SSIM with shape (B,) of images with shape (B, C, H, W) in [0, 1], unchecked."""
    _check_size(y, len(scale_weights), window, border)
    product = torch.ones(x.shape[0], dtype=x.dtype, device=x.device)
    for scale, exponent in enumerate(scale_weights):
        last = scale == len(scale_weights) - 1
        luminance, structure = similarity_maps(
            x, y, window=window, sigma=sigma, k1=k1, k2=k2, border=border if last else "valid"
        )
        similarity = (luminance * structure if last else structure).flatten(1).mean(dim=1)
        product = product * _power((similarity + 1.0) / 2.0 if negative == "shift" else similarity, exponent)
        if not last:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product


class MSSSIM(ComparisonLoss):
    """The loss 1 - MS-SSIM over images (B, C, H, W) in [-1, 1] (as a loss: Zhao et al., arXiv:1511.08861).

    With the five scales of the paper images need at least 96 x 96 pixels. Unlike the metric it does not clamp by
    default, and shifts negative similarities: a clamped pixel, and an image that does not resemble its target at some
    scale, would get no gradient.

    Args:
        clamp: whether values outside [-1, 1] are first clamped.
        scale_weights: exponent of each scale, finest first; fewer of them for small images.
        window: side of the Gaussian window in pixels, odd.
        sigma: standard deviation of the Gaussian in pixels.
        k1: stabilises the comparison of means.
        k2: stabilises the comparison of variances.
        border: of the last scale: ``reflect`` (as torchmetrics) or ``valid`` (as Wang).
        negative: ``shift`` maps similarities to (s + 1) / 2, ``zero`` takes negative ones as 0, without gradient.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    input_range = SIGNED

    def __init__(
        self,
        *,
        clamp: bool = False,
        scale_weights: Sequence[Annotated[float, Field(gt=0)]] = SCALE_WEIGHTS,
        window: Annotated[int, Field(ge=1)] = 11,
        sigma: Annotated[float, Field(gt=0)] = 1.5,
        k1: Annotated[float, Field(gt=0)] = 0.01,
        k2: Annotated[float, Field(gt=0)] = 0.03,
        border: Border = "reflect",
        negative: Negative = "shift",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        check_window(window, sigma, k1, k2, border)
        check_choice("negative", negative, Negative)
        if not scale_weights or min(scale_weights) <= 0:
            raise ValueError(f"scale_weights={list(scale_weights)}: expected one or more numbers > 0")
        self.clamp = clamp
        self.scale_weights = tuple(scale_weights)
        self.window = window
        self.sigma = sigma
        self.k1 = k1
        self.k2 = k2
        self.border: Border = border
        self.negative: Negative = negative
        self.smallest_size = _smallest_side(len(self.scale_weights), window, border)

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """1 - MS-SSIM with shape (B, 1, 1, 1) of images with shape (B, C, H, W) in [-1, 1]."""
        similarity = _product(
            *unit_images(prediction, target, SIGNED, self.clamp),
            scale_weights=self.scale_weights,
            window=self.window,
            sigma=self.sigma,
            k1=self.k1,
            k2=self.k2,
            border=self.border,
            negative=self.negative,
        )
        return (1.0 - similarity).reshape(-1, 1, 1, 1)


def _power(values: Tensor, exponent: float) -> Tensor:
    """values^exponent, and 0 with gradient 0 where they are not positive, with shape (B,)."""
    positive = ~(values <= 0.0)  # what is no number stays none
    return torch.where(positive, torch.where(positive, values, 1.0) ** exponent, 0.0)


def _check_size(images: Tensor, scales: int, window: int, border: Border) -> None:
    least = _smallest_side(scales, window, border)
    if min(images.shape[-2:]) < least:
        raise UserError(
            f"images of {images.shape[-2]} x {images.shape[-1]} pixels: MS-SSIM with {scales} scales and windows of "
            f"{window} needs at least {least} x {least}; give fewer scale_weights"
        )


def _smallest_side(scales: int, window: int, border: Border) -> int:
    """The least height and width: every scale but the last takes whole windows only, and halving rounds down."""
    return max(smallest_side(window, border) << (scales - 1), *(window << scale for scale in range(scales - 1)), 1)
