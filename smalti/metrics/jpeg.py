"""JPEG at the tokenizer's rate: what the same bits buy without any training."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.losses.psnr import psnr
from smalti.metrics import Metric, Observation
from smalti.metrics._codec import eight_bits, read, written
from smalti.metrics.bits_per_pixel import stored_bits
from smalti.registry import UserError

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator

QUALITIES = (1, 95)


class JPEG(Metric):
    """PSNR in dB of images (B, C, H, W) as JPEG of at most the tokenizer's bits (Wallace, doi:10.1145/103085.103089).

    Of each image the file with the highest quality that takes no more bits than ``bits_per_pixel`` counts, its head
    included, or the smallest file there is: ``jpeg_psnr`` and ``jpeg_bits_per_pixel`` are the means over images. The
    convention is that of ``psnr``. It says nothing of images whose bits are not known.
    """

    def create(self) -> "Accumulator":
        """An accumulator of sums and of the number of images."""
        from smalti.metrics._accumulators import ImageMeans

        return ImageMeans("jpeg_psnr", "jpeg_bits_per_pixel")

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Writes the images of a batch, each with shape (1 or 3, H, W), as often as it takes.

        Raises:
            UserError: for images with other channels.
        """
        target = observation.target.float()
        if target.shape[1] not in {1, 3}:
            raise UserError(f"jpeg: images with {target.shape[1]} channels: expected 1 or 3")
        bits = observation.bits
        bits = stored_bits(observation.bottleneck, observation.codebook_sizes) if bits is None else bits
        files = [_largest(image, float(most)) for image, most in zip(eight_bits(observation.target), bits, strict=True)]
        made = torch.stack([read(file, target.shape[1]) for file in files]).to(target) / 127.5 - 1.0
        sizes = torch.tensor([8.0 * len(file) for file in files], dtype=torch.float64, device=target.device)
        sizes = torch.where(bits.isfinite(), sizes, torch.nan)
        rates = sizes / (target.shape[2] * target.shape[3])
        accumulator.update({"jpeg_psnr": psnr(made, target) + 0.0 * rates, "jpeg_bits_per_pixel": rates})


def _largest(image: Tensor, most: float) -> bytes:
    """The file of highest quality with at most so many bits; that of the lowest if none has so few.

    Sizes rise with quality but for single bytes: it is searched by halving.
    """
    low, high = QUALITIES
    best = written(image, "JPEG", quality=low)
    while low < high:
        middle = (low + high + 1) // 2
        file = written(image, "JPEG", quality=middle)
        if 8 * len(file) <= most:
            low, best = middle, file
        else:
            high = middle - 1
    return best
