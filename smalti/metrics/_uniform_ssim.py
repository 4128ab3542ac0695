"""SSIM with a square window of equal weights, as scikit-image takes it by default."""

from torch import Tensor
from torch.nn import functional as F

from smalti.losses._range import SIGNED, check_images, clamped

SIDE = 7


def uniform_ssim(prediction: Tensor, target: Tensor, *, k1: float = 0.01, k2: float = 0.03) -> Tensor:
    """Mean of the SSIM map over the 7 x 7 windows wholly in the image and over channels, with shape (B,).

    (2 m_x m_y + k1^2)(2 c + k2^2) / ((m_x^2 + m_y^2 + k1^2)(v_x + v_y + k2^2)), variances and covariance divided by 48.

    Args:
        prediction: with shape (B, C, H, W) in [-1, 1]; clamped, then mapped to [0, 1].
        target: same shape and range.
        k1: stabilises the comparison of means.
        k2: stabilises the comparison of variances.
    """
    check_images(prediction, target, SIGNED)
    x, y = ((clamped(of.double(), SIGNED) + 1) / 2 for of in (prediction, target))
    scale = SIDE**2 / (SIDE**2 - 1)
    mean_x, mean_y = _mean(x), _mean(y)
    var_x, var_y = scale * (_mean(x * x) - mean_x**2), scale * (_mean(y * y) - mean_y**2)
    covariance = scale * (_mean(x * y) - mean_x * mean_y)
    top = (2 * mean_x * mean_y + k1**2) * (2 * covariance + k2**2)
    return (top / ((mean_x**2 + mean_y**2 + k1**2) * (var_x + var_y + k2**2))).mean(dim=(1, 2, 3))


def _mean(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, SIDE, stride=1)
