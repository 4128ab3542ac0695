"""What SSIM and MS-SSIM share: luminance and structure of two images in Gaussian windows."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.losses._range import Range, clamped, floating
from smalti.losses._reduction import check_choice, check_same_shape

Border = Literal["reflect", "valid"]


def unit_images(prediction: Tensor, target: Tensor, allowed: Range, clamp: bool) -> tuple[Tensor, Tensor]:
    """Both, with shape (B, C, H, W), mapped from the range to [0, 1], if asked clamped first, in at least float32."""
    check_same_shape(prediction, target)
    low, high = allowed
    images = [floating(prediction), floating(target)]
    x, y = ((clamped(of, allowed) if clamp else of) for of in images)
    return (x - low) / (high - low), (y - low) / (high - low)


def similarity_maps(
    x: Tensor, y: Tensor, *, window: int, sigma: float, k1: float, k2: float, border: Border
) -> tuple[Tensor, Tensor]:
    """Luminance and structure of each window, the two factors of SSIM, per channel; data range 1.

    With Gaussian-weighted means m, variances v and covariance c in every window: luminance is
    (2 m_x m_y + k1^2) / (m_x^2 + m_y^2 + k1^2), structure (2 c + k2^2) / (v_x + v_y + k2^2).

    Args:
        x: with shape (B, C, H, W), in [0, 1].
        y: same shape and range.
        window: side of the window in pixels, odd.
        sigma: standard deviation of the Gaussian in pixels.
        k1: stabilises the comparison of means.
        k2: stabilises the comparison of variances.
        border: ``reflect`` continues the images, ``valid`` takes the windows that lie wholly inside.

    Returns:
        Two maps with shape (B, C, H, W) for ``reflect`` and (B, C, H - window + 1, W - window + 1) for ``valid``.
    """
    if border == "reflect":
        x, y = (F.pad(images, [window // 2] * 4, mode="reflect") for images in (x, y))
    with torch.autocast(device_type=x.device.type, enabled=False):
        moments = _blur(torch.cat([x, y, x * x, y * y, x * y], dim=1), window, sigma)
    mean_x, mean_y, xx, yy, xy = moments.chunk(5, dim=1)
    # Rounding can make a variance of a flat region slightly negative.
    variances = (xx - mean_x.square()).clamp(min=0.0) + (yy - mean_y.square()).clamp(min=0.0)
    covariance = xy - mean_x * mean_y
    luminance = (2.0 * mean_x * mean_y + k1**2) / (mean_x.square() + mean_y.square() + k1**2)
    structure = (2.0 * covariance + k2**2) / (variances + k2**2)
    return luminance, structure


def check_window(window: int, sigma: float, k1: float, k2: float, border: str) -> None:
    """Raises ValueError for options that make no window."""
    check_choice("border", border, Border)
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window={window!r}: expected an odd number of pixels")
    for name, value in (("sigma", sigma), ("k1", k1), ("k2", k2)):
        if value <= 0:
            raise ValueError(f"{name}={value!r}: expected a number > 0")


def _blur(maps: Tensor, window: int, sigma: float) -> Tensor:
    """Gaussian means of maps (B, C, H, W) in the windows that lie wholly inside: (B, C, H - window + 1, W - ...)."""
    offsets = torch.arange(window, dtype=maps.dtype, device=maps.device) - (window - 1) / 2
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    flat = maps.flatten(0, 1).unsqueeze(1)
    flat = F.conv2d(F.conv2d(flat, kernel.reshape(1, 1, -1, 1)), kernel.reshape(1, 1, 1, -1))
    return flat.reshape(*maps.shape[:2], *flat.shape[-2:])
