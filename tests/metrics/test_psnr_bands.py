"""PSNR by bands: Parseval, and where single frequencies go."""

import math

import pytest
import torch

from smalti.losses.psnr import psnr
from smalti.metrics import Observation
from smalti.metrics.psnr_bands import PSNRBands, band_errors
from smalti.outputs import BottleneckOutput


@pytest.mark.parametrize("size", [(9, 9), (16, 33), (64, 48)])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_errors_of_bands_add_up_to_that_of_the_image(size: tuple[int, int], bands: int) -> None:
    target = torch.rand(2, 3, *size) * 2 - 1
    made = (target + 0.1 * torch.randn(target.shape)).clamp(-1, 1)
    errors = band_errors(made, target, bands)
    assert errors.shape == (2, bands)
    assert bool((errors > 0).all())
    torch.testing.assert_close(-10 * torch.log10(errors.sum(dim=1)).float(), psnr(made, target), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("period", "band"), [(math.inf, 0), (32, 0), (16, 1), (12.8, 1), (8, 2), (4.0, 3), (64 / 30, 3), (2, 3)]
)
def test_a_wave_is_in_the_band_of_its_period(period: float, band: int) -> None:
    wave = torch.cos(2 * math.pi * torch.arange(64.0) / period).expand(1, 1, 64, 64) * 0.5
    for image in (wave, wave.mT):
        errors = band_errors(image, torch.zeros_like(image), 4)[0]
        assert errors[band].item() == pytest.approx(image.square().mean().item() / 4, rel=1e-5)
        assert errors.sum().item() == pytest.approx(errors[band].item(), rel=1e-5)


def test_blur_costs_fine_bands_and_a_tint_the_coarsest() -> None:
    target = torch.rand(1, 3, 32, 32) - 0.5
    blurred = torch.nn.functional.avg_pool2d(target, 3, 1, 1, count_include_pad=False)

    def bands(made: torch.Tensor) -> list[float]:
        seen = Observation(
            target=target, reconstruction=made, bottleneck=BottleneckOutput(latent=target), codebook_sizes={}
        )
        return [value.item() for value in PSNRBands().per_image(seen).values()]

    fine, tint = bands(blurred), bands(target + 0.1)
    assert fine[0] > fine[-1] + 10
    assert tint[0] == pytest.approx(-20 * math.log10(0.05), rel=1e-5)
    assert min(tint[1:]) > 100


def test_says_how_small_images_may_be() -> None:
    assert [PSNRBands(bands).smallest_size for bands in (1, 2, 4)] == [2, 3, 9]
    for bands in (2, 4, 6):
        least = PSNRBands(bands).smallest_size
        noise = torch.randn(1, 1, least, least)
        assert bool((band_errors(noise, torch.zeros_like(noise), bands) > 0).all())
    with pytest.raises(ValueError, match="bands=0: expected 1 to 12"):
        PSNRBands(0)
