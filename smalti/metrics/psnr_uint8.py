"""PSNR of whole images, mean over images: what saved PNG files would give."""

from torch import Tensor

from smalti.losses.psnr import psnr_uint8
from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric


class PSNRUint8(PerImageMetric):
    """Mean over images of the PSNR in dB of 8-bit images (Huynh-Thu et al., doi:10.1049/el:20080522).

    PSNR = 10 log10(1 / MSE) of images with shape (B, C, H, W), clamped to [-1, 1] and rounded to 8 bits;
    the convention stands in ``smalti.losses.psnr``. The mean of decibels is not the decibels of the mean error.
    """

    higher_is_better = True
    names = ("psnr_uint8",)

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``psnr_uint8`` -> dB of each image, with shape (B,)."""
        return {"psnr_uint8": psnr_uint8(observation.reconstruction, observation.target)}
