"""PSNR by bands of frequency: whether the error is in the colours of areas or in the finest detail."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.losses._range import SIGNED, check_images, clamped
from smalti.metrics import Observation
from smalti.metrics._per_image import PerImageMetric


def band_errors(prediction: Tensor, target: Tensor, bands: int) -> Tensor:
    """Mean squared error of each image in each band, on images mapped to [0, 1], with shape (B, bands).

    Band 0 are the periods above 2^bands pixels, band b those from 2^(bands - b) to twice as many, the last also what is
    shorter. By Parseval's theorem their sum is the mean squared error.

    Args:
        prediction: with shape (B, C, H, W), in [-1, 1].
        target: same shape and range.
        bands: number of octaves, and the rest below.
    """
    spectrum = torch.fft.fft2((prediction - target).double() / 2.0, norm="ortho")
    power = (spectrum.real.square() + spectrum.imag.square()).mean(dim=1)
    rows, columns = (torch.fft.fftfreq(side, dtype=torch.float64, device=power.device) for side in power.shape[1:])
    frequency = torch.hypot(rows[:, None], columns)
    edges = 2.0 ** torch.arange(-bands, -1, dtype=torch.float64, device=power.device)
    band = torch.bucketize(frequency.flatten(), edges, right=True)
    sums = power.new_zeros(len(power), bands).index_add_(1, band, power.flatten(1))
    errors: Tensor = sums / frequency.numel()
    return errors


class PSNRBands(PerImageMetric):
    """Mean over images (B, C, H, W) of the PSNR of octaves of frequency, in dB (cf. Jiang et al., arXiv:2012.12821).

    ``psnr_bands_0`` is the coarsest, of periods above 2^bands pixels, each next one of half the period, the last also
    what lies beyond along the diagonal. The convention is that of ``psnr``: clamped to [-1, 1], mapped to [0, 1], not
    rounded. The bands' squared errors of an image add up to that of the image.

    Args:
        bands: number of bands; images need at least 2^(bands - 1) + 1 pixels along each side.
    """

    higher_is_better = True

    def __init__(self, bands: Annotated[int, Field(ge=1, le=12)] = 4) -> None:
        if not 1 <= bands <= 12:
            raise ValueError(f"bands={bands}: expected 1 to 12")
        self.bands = bands
        self.smallest_size = 2 ** (bands - 1) + 1
        self.names = tuple(f"psnr_bands_{band}" for band in range(bands))

    def per_image(self, observation: Observation) -> dict[str, Tensor]:
        """``psnr_bands_<number>`` -> dB of each image, with shape (B,)."""
        check_images(observation.reconstruction, observation.target, SIGNED)
        made, real = (clamped(of.float(), SIGNED) for of in (observation.reconstruction, observation.target))
        decibels = -10.0 * torch.log10(band_errors(made, real, self.bands))
        return dict(zip(self.names, decibels.unbind(dim=1), strict=True))
