"""JPEG in as many bits: the best file that is not larger, against all qualities written out."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.metrics import Observation
from smalti.metrics.jpeg import JPEG
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError


def picture(channels: int = 3) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    array = np.asarray(Image.fromarray(values).resize((64, 48), Image.Resampling.BICUBIC), dtype=np.float32)
    return torch.from_numpy(array / 127.5 - 1).permute(2, 0, 1)[None, :channels]


def found_with(images: torch.Tensor, bits: float) -> dict[str, float]:
    metric = JPEG()
    accumulator = metric.create()
    seen = Observation(
        target=images,
        reconstruction=images,
        bottleneck=BottleneckOutput(latent=images),
        codebook_sizes={},
        bits=torch.full((len(images),), bits, dtype=torch.float64),
    )
    metric.update(accumulator, seen)
    return {name: float(value) for name, value in accumulator.compute().items()}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rate", [2.0, 3.0, 5.0])
def test_it_is_the_best_file_that_is_not_larger(channels: int, rate: float) -> None:
    images = picture(channels)
    array = ((images[0].permute(1, 2, 0).numpy() + 1) * 127.5).round().astype(np.uint8)
    array = array[..., 0] if channels == 1 else array
    best = None
    for quality in range(1, 96):
        file = io.BytesIO()
        Image.fromarray(array).save(file, "JPEG", quality=quality)
        if 8 * len(file.getvalue()) <= rate * 64 * 48:
            best = file
    assert best is not None
    error = (np.asarray(Image.open(best), dtype=np.float64) - array) / 255
    found = found_with(images, rate * 64 * 48)
    assert found["jpeg_bits_per_pixel"] == pytest.approx(8 * len(best.getvalue()) / (64 * 48))
    assert found["jpeg_psnr"] == pytest.approx(-10 * np.log10((error**2).mean()), abs=1e-4)


def test_no_file_is_so_small_none_is_known_and_four_channels_are_refused() -> None:
    least = found_with(picture(), 8.0)
    assert least["jpeg_bits_per_pixel"] * 64 * 48 > 8.0
    assert found_with(picture(), 0.0) == least
    assert np.isnan(found_with(picture(), float("nan"))["jpeg_psnr"])
    with pytest.raises(UserError, match="4 channels: expected 1 or 3"):
        found_with(torch.zeros(1, 4, 16, 16), 100.0)
