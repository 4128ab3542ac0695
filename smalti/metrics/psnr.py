"""PSNR of whole images: images clamped to [-1, 1], mapped to [0, 1], not rounded."""

import math
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from smalti.losses._range import SIGNED, check_images, clamped
from smalti.losses._reduction import check_choice
from smalti.losses.psnr import psnr
from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric
from smalti.metrics._quantized import Quantize, quantized

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator

Mean = Literal["image_mean", "pooled"]


class PSNR(PerImageMetric):
    """Mean over images of the peak signal-to-noise ratio in dB (Huynh-Thu et al., doi:10.1049/el:20080522).

    PSNR = 10 log10(R^2 / MSE) of images with shape (B, C, H, W), clamped to [-1, 1], mapped to [0, 1], not rounded;
    the convention stands in ``smalti.losses.psnr``. The mean of decibels is not the decibels of the mean error.

    Args:
        mean: ``image_mean``: the mean over images of their decibels; ``pooled``: the decibels of the mean squared error
            of all pixels of all images.
        data_range: R; another than 1 adds 20 log10 R dB.
        quantize: ``none``: not rounded; else both images are put on the grid of 8 bits: ``round``, ``truncate``
            (255 (x + 1) / 2, cut off) or ``truncate128`` (127.5 x + 128, cut off).
    """

    higher_is_better = True
    names = ("psnr",)

    def __init__(self, mean: Mean = "image_mean", data_range: float = 1.0, quantize: Quantize = "none") -> None:
        check_choice("mean", mean, Mean)
        check_choice("quantize", quantize, Quantize)
        if not data_range > 0:
            raise ValueError(f"data_range={data_range}: expected a positive number")
        self.mean: Mean = mean
        self.quantize: Quantize = quantize
        self.data_range = data_range

    def create(self) -> "Accumulator":
        """An accumulator of sums over images, or over pixels."""
        if self.mean == "image_mean":
            return super().create()
        from smalti.metrics._accumulators import PooledDecibels

        return PooledDecibels(self.data_range)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Adds a batch of images, each with shape (B, C, H, W)."""
        if self.mean == "image_mean":
            super().update(accumulator, observation)
            return
        check_images(observation.reconstruction, observation.target, SIGNED)
        made, target = (clamped(of.double(), SIGNED) for of in self._images(observation))
        errors = ((made - target) / 2).square()
        accumulator.update(errors.sum(), errors.numel())

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``psnr`` -> dB of each image, with shape (B,); nothing if errors are pooled."""
        if self.mean == "pooled":
            return {}
        decibels = psnr(*self._images(observation))
        return {"psnr": decibels if self.data_range == 1.0 else decibels + 20.0 * math.log10(self.data_range)}

    def _images(self, observation: Observation) -> tuple[Tensor, Tensor]:
        return quantized(observation.reconstruction, self.quantize), quantized(observation.target, self.quantize)
