"""SSIM: structural similarity under a Gaussian window (Wang et al., 2004, doi:10.1109/TIP.2003.819861).

Implementations differ at the border: torchmetrics averages over windows centred on every pixel, the image continued by
reflection; Wang's code and scikit-image average over the windows that lie wholly in the image.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._range import SIGNED, check_images, ends
from smalti.losses._reduction import Weighting
from smalti.losses._structure import Border as Border  # noqa: PLC0414 (metrics name it from here)
from smalti.losses._structure import check_window, similarity_maps, unit_images
from smalti.registry import UserError

WINDOW = 11


def ssim(
    prediction: Tensor,
    target: Tensor,
    *,
    clamp: bool = True,
    window: int = WINDOW,
    sigma: float = 1.5,
    k1: float = 0.01,
    k2: float = 0.03,
    border: Border = "reflect",
    data_range: float | Sequence[float] = SIGNED,
) -> Tensor:
    """Mean of the SSIM map of each image, the images mapped from the data range to [0, 1].

    With Gaussian-weighted means m, variances v and covariance c in every window:
    (2 m_x m_y + k1^2)(2 c + k2^2) / ((m_x^2 + m_y^2 + k1^2)(v_x + v_y + k2^2)), per channel.

    Args:
        prediction: with shape (B, C, H, W), in [-1, 1] unless ``data_range`` says otherwise.
        target: same shape and range.
        clamp: whether values outside the range are first clamped; a prediction that is not finite gives nan.
        window: side of the window in pixels, odd.
        sigma: standard deviation of the Gaussian in pixels.
        k1: stabilises the comparison of means.
        k2: stabilises the comparison of variances.
        border: ``reflect`` (as torchmetrics) or ``valid`` (as scikit-image and Wang).
        data_range: the range of the images: (low, high), or R for [0, R]. With 255 images may be whole numbers.

    Returns:
        With shape (B,), in [-1, 1].

    Raises:
        ValueError: for unequal shapes, a target outside the range, or whole numbers in a range of [-1, 1].
        UserError: for images smaller than the window (``valid``), or than half of it (``reflect``).

    Example:
        >>> import torch
        >>> image = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16)
        >>> ssim(image, image)
        tensor([1.])
    """
    allowed = ends(data_range)
    check_window(window, sigma, k1, k2, border)
    check_images(prediction, target, allowed)
    x, y = unit_images(prediction, target, allowed, clamp)
    return _similarity(x, y, window=window, sigma=sigma, k1=k1, k2=k2, border=border)


def _similarity(x: Tensor, y: Tensor, *, window: int, sigma: float, k1: float, k2: float, border: Border) -> Tensor:
    """SSIM with shape (B,) of images with shape (B, C, H, W) in [0, 1], unchecked."""
    height, width = y.shape[-2:]
    least = smallest_side(window, border)
    if min(height, width) < least:
        raise UserError(f"images of {height} x {width} pixels: SSIM needs at least {least} x {least}")
    luminance, structure = similarity_maps(x, y, window=window, sigma=sigma, k1=k1, k2=k2, border=border)
    return (luminance * structure).flatten(1).mean(dim=1)


def smallest_side(window: int, border: Border) -> int:
    """The least height and width of an image that SSIM takes: what can be continued by reflection, or whole windows.

    >>> smallest_side(11, "reflect"), smallest_side(11, "valid")
    (6, 11)
    """
    return window // 2 + 1 if border == "reflect" else window


class SSIM(ComparisonLoss):
    """The loss 1 - SSIM (as a loss: Zhao et al., arXiv:1511.08861).

    Unlike the metric it does not clamp by default: a clamped pixel would get no gradient.

    Args:
        clamp: whether values outside [-1, 1] are first clamped.
        window: side of the Gaussian window in pixels, odd.
        sigma: standard deviation of the Gaussian in pixels.
        k1: stabilises the comparison of means.
        k2: stabilises the comparison of variances.
        border: ``reflect`` (as torchmetrics) or ``valid`` (as scikit-image and Wang).
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    input_range = SIGNED

    def __init__(
        self,
        *,
        clamp: bool = False,
        window: Annotated[int, Field(ge=1)] = WINDOW,
        sigma: Annotated[float, Field(gt=0)] = 1.5,
        k1: Annotated[float, Field(gt=0)] = 0.01,
        k2: Annotated[float, Field(gt=0)] = 0.03,
        border: Border = "reflect",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        check_window(window, sigma, k1, k2, border)
        self.clamp = clamp
        self.window = window
        self.sigma = sigma
        self.k1 = k1
        self.k2 = k2
        self.border: Border = border
        self.smallest_size = smallest_side(window, border)

    def unreduced(self, prediction: Tensor, target: Tensor) -> Tensor:
        """1 - SSIM with shape (B, 1, 1, 1) of images with shape (B, C, H, W) in [-1, 1]."""
        x, y = unit_images(prediction, target, SIGNED, self.clamp)
        similarity = _similarity(x, y, window=self.window, sigma=self.sigma, k1=self.k1, k2=self.k2, border=self.border)
        return (1.0 - similarity).reshape(-1, 1, 1, 1)
