"""SSIM of whole images, mean over images."""

from typing import Literal

from torch import Tensor

from smalti.losses._reduction import check_choice
from smalti.losses.ssim import WINDOW, Border, smallest_side, ssim
from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric
from smalti.metrics._quantized import Quantize, quantized
from smalti.metrics._uniform_ssim import SIDE, uniform_ssim

Window = Literal["gaussian11", "uniform7"]


class SSIM(PerImageMetric):
    """Mean over images of the structural similarity (Wang et al., 2004, doi:10.1109/TIP.2003.819861).

    Images with shape (B, C, H, W), clamped to [-1, 1], mapped to [0, 1]; window 11, sigma 1.5, k1 0.01, k2 0.03. With
    another data range than 1 the number is called ``ssim_inflated``: a range of 2 is too large by a factor of 2.

    Args:
        border: ``reflect`` (as torchmetrics) or ``valid`` (as scikit-image); of ``uniform7`` only ``valid``.
        window: ``gaussian11``, or ``uniform7``: 7 x 7 pixels of equal weight, covariances divided by 48 (scikit-image's
            default).
        data_range: R in the constants (k R)^2.
        quantize: ``none``, or both images are put on the grid of 8 bits first, as of ``psnr``.
    """

    higher_is_better = True

    def __init__(
        self,
        border: Border = "reflect",
        window: Window = "gaussian11",
        data_range: float = 1.0,
        quantize: Quantize = "none",
    ) -> None:
        check_choice("border", border, Border)
        check_choice("quantize", quantize, Quantize)
        check_choice("window", window, Window)
        if window == "uniform7" and border != "valid":
            raise ValueError(f"border={border!r}: expected 'valid' with window='uniform7'")
        if not data_range > 0:
            raise ValueError(f"data_range={data_range}: expected a positive number")
        self.border: Border = border
        self.window: Window = window
        self.data_range = data_range
        self.quantize: Quantize = quantize
        self.smallest_size = SIDE if window == "uniform7" else smallest_side(WINDOW, border)
        self.names = ("ssim" if data_range == 1.0 else "ssim_inflated",)

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``ssim`` (or ``ssim_inflated``) -> similarity of each image, with shape (B,)."""
        images = [quantized(of, self.quantize) for of in (observation.reconstruction, observation.target)]
        k1, k2 = 0.01 * self.data_range, 0.03 * self.data_range
        if self.window == "uniform7":
            return {self.names[0]: uniform_ssim(*images, k1=k1, k2=k2)}
        return {self.names[0]: ssim(*images, border=self.border, k1=k1, k2=k2)}
