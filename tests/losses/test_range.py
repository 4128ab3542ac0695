"""The range of images: refused by name where it is wrong, an option where it is another one; no number stays none."""

import math

import pytest
import torch
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from smalti.data.grid import save_grid, to_uint8
from smalti.extractors import lpips as features
from smalti.losses._range import check_images
from smalti.losses.lpips import LPIPS, lpips
from smalti.losses.ms_ssim import MSSSIM, ms_ssim
from smalti.losses.mse import MSE
from smalti.losses.psnr import PSNR, psnr, psnr_uint8
from smalti.losses.scaled_nll import Distance, ScaledNLL
from smalti.losses.ssim import SSIM, ssim
from smalti.metrics import lpips as lpips_metric
from smalti.metrics import psnr as psnr_metric
from smalti.metrics import psnr_uint8 as psnr_uint8_metric
from smalti.metrics import sliced_wasserstein
from smalti.metrics import ssim as ssim_metric
from tests.contracts.examples import TINY_LPIPS
from tests.metrics.test_metrics import measure, observation

TWO = (0.4, 0.6)
EXTRACTOR = features.LPIPS(**TINY_LPIPS)


def small_ms_ssim(prediction, target, **options):
    return ms_ssim(prediction, target, scale_weights=TWO, **options)


FUNCTIONS = {"psnr": psnr, "psnr_uint8": psnr_uint8, "ssim": ssim, "ms_ssim": small_ms_ssim}
MEASURES = FUNCTIONS | {
    "lpips": lambda prediction, target: lpips(prediction, target, extractor=EXTRACTOR, reduction="none").flatten(),
    "PSNR": PSNR(),
    "SSIM": SSIM(),
    "MSSSIM": MSSSIM(scale_weights=TWO),
    "LPIPS": LPIPS(extractor=EXTRACTOR),
    "scaled_nll": lambda *images: (
        ScaledNLL(
            distances={"near": Distance(loss=LPIPS(extractor=EXTRACTOR)), "l2": Distance(loss=MSE(reduction="none"))}
        )(*images).total
    ),
}
METRICS = {
    "psnr": psnr_metric.PSNR,
    "psnr_uint8": psnr_uint8_metric.PSNRUint8,
    "ssim": ssim_metric.SSIM,
    "lpips_random": lambda: lpips_metric.LPIPS(features.LPIPS(**TINY_LPIPS)),
    "sliced_wasserstein": sliced_wasserstein.SlicedWasserstein,
}


def pair(size=24):
    """A target in [-1, 1] that reaches both ends, and a noisy prediction inside it."""
    target = torch.sin(torch.linspace(0.0, 40.0, 2 * 3 * size * size)).reshape(2, 3, size, size)
    return (target + 0.1 * torch.randn_like(target)).clamp(-1.0, 1.0), target


def levels(images):
    return ((images + 1.0) * 127.5).round()


WRONG = {
    "0..255": (levels, "target has values from 0 to 255"),
    "uint8": (lambda x: levels(x).to(torch.uint8), "is torch.uint8"),
    "int64": (lambda x: levels(x).long(), "is torch.int64"),
    "bool": (lambda x: x > 0, "is torch.bool"),
    "too bright": (lambda x: x + 0.2, r"target has values from -0\.8 to 1\.2"),
    "infinite": (lambda x: torch.where(x > 0.9, math.inf, x), "to inf"),
}


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(("change", "seen"), WRONG.values(), ids=WRONG)
def test_functions_and_classes_refuse_a_wrong_range_and_name_what_they_saw(name, change, seen):
    prediction, target = (change(images) for images in pair())
    with pytest.raises(ValueError, match=rf"{seen}.*: expected (floating )?images in \[-1, 1\]"):
        MEASURES[name](prediction, target)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("wrong", ["0..255", "uint8"])
def test_metrics_refuse_a_wrong_range(name, wrong):
    prediction, target = (WRONG[wrong][0](images) for images in pair())
    with pytest.raises(ValueError, match=r"images in \[-1, 1\]"):
        measure(METRICS[name](), observation(target, prediction))


@pytest.mark.parametrize("name", MEASURES)
def test_a_prediction_may_overshoot_and_a_target_by_rounding(name):
    prediction, target = pair()
    assert torch.isfinite(MEASURES[name](3.0 * prediction, 1.04 * target)).all()


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("place", [0, 1], ids=["prediction", "target"])
def test_what_is_no_number_stays_none(name, place):
    images = [*pair()]
    images[place][0, 1, 3, 4] = math.nan
    values = MEASURES[name](*images)
    assert values.isnan().tolist() == ([True, False] if values.ndim else True)


@pytest.mark.parametrize("name", METRICS)
@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_metrics_of_a_model_that_diverged_are_no_numbers(name, spoilt):
    prediction, target = pair()
    prediction[0, 0, 2, 2] = spoilt
    assert math.isnan(measure(METRICS[name](), observation(target, prediction))[name])


RANGES = [1.0, 2.0, 255, (0, 255), (-1.0, 1.0), (-3.0, 5.0)]


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("data_range", RANGES)
def test_the_data_range_is_the_unit_of_the_images(name, data_range):
    low, high = data_range if isinstance(data_range, tuple) else (0.0, data_range)
    prediction, target = pair()
    prediction[0, 0] *= 2.0  # overshoots, in any unit
    moved = [(images + 1.0) / 2.0 * (high - low) + low for images in (prediction, target)]
    torch.testing.assert_close(
        FUNCTIONS[name](*moved, data_range=data_range), FUNCTIONS[name](prediction, target), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_equal_torchmetrics_in_its_units(data_range):
    prediction, target = (data_range * (images + 1.0) / 2.0 for images in pair())
    single = [
        peak_signal_noise_ratio(one[None], other[None], data_range=data_range)
        for one, other in zip(prediction, target, strict=True)
    ]
    torch.testing.assert_close(psnr(prediction, target, data_range=data_range), torch.stack(single))
    options = {"data_range": data_range, "reduction": "none"}
    torch.testing.assert_close(
        ssim(prediction, target, data_range=data_range),
        structural_similarity_index_measure(prediction, target, **options),
        rtol=1e-4,
        atol=1e-5,
    )
    torch.testing.assert_close(
        small_ms_ssim(prediction, target, data_range=data_range),
        multiscale_structural_similarity_index_measure(
            prediction, target, betas=TWO, normalize="relu", kernel_size=11, **options
        ),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64])
def test_whole_numbers_are_images_in_0_to_255(name, dtype):
    whole = [levels(images) for images in pair()]
    expected = FUNCTIONS[name](*(images / 127.5 - 1.0 for images in whole))
    found = FUNCTIONS[name](*(images.to(dtype) for images in whole), data_range=255)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_another_range_is_checked_too_and_must_be_one(name):
    prediction, target = pair()
    with pytest.raises(ValueError, match=r"target has values from -1 to 1: expected images in \[0, 1\]"):
        FUNCTIONS[name](prediction, target, data_range=1.0)
    for wrong in (0, -1.0, math.inf, math.nan, (1.0, 1.0), (1.0, -1.0), (0.0, 1.0, 2.0), "255", ("a", "b")):
        with pytest.raises(ValueError, match=r"data_range=.*: expected a number above 0"):
            FUNCTIONS[name](prediction, target, data_range=wrong)


def test_pictures_are_not_made_of_whole_numbers(tmp_path):
    bytes_ = levels(pair()[0]).to(torch.uint8)
    for make in (to_uint8, lambda images: save_grid(tmp_path / "grid.png", images, 1)):
        with pytest.raises(ValueError, match=r"torch\.uint8: expected floating images in \[-1, 1\]"):
            make(bytes_)


def test_nothing_is_read_of_images_without_values():
    empty = torch.empty(2, 3, 4, 4, device="meta")
    check_images(empty, empty, (-1.0, 1.0))
    check_images(torch.zeros(0, 3, 4, 4), torch.zeros(0, 3, 4, 4), (-1.0, 1.0))
