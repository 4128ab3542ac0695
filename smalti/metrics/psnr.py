"""PSNR of whole images, mean over images: images clamped to [-1, 1], mapped to [0, 1], not rounded."""

from torch import Tensor

from smalti.losses.psnr import psnr
from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric


class PSNR(PerImageMetric):
    """Mean over images of the peak signal-to-noise ratio in dB (Huynh-Thu et al., doi:10.1049/el:20080522).

    PSNR = 10 log10(1 / MSE) of images with shape (B, C, H, W), clamped to [-1, 1], mapped to [0, 1], not rounded;
    the convention stands in ``smalti.losses.psnr``. The mean of decibels is not the decibels of the mean error.
    """

    higher_is_better = True
    names = ("psnr",)

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``psnr`` -> dB of each image, with shape (B,)."""
        return {"psnr": psnr(observation.reconstruction, observation.target)}
