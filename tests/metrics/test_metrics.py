"""What each metric means, against torchmetrics and by hand."""

import math
import sys
from subprocess import run

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from smalti.extractors import lpips as features
from smalti.metrics import Metric, Observation
from smalti.metrics.bits_per_image import BitsPerImage
from smalti.metrics.codebook_usage import CodebookUsage
from smalti.metrics.lpips import LPIPS
from smalti.metrics.perplexity import Perplexity
from smalti.metrics.psnr import PSNR
from smalti.metrics.psnr_uint8 import PSNRUint8
from smalti.metrics.ssim import SSIM
from smalti.outputs import BottleneckOutput


def observation(
    target: Tensor | None = None,
    reconstruction: Tensor | None = None,
    indices: Tensor | None = None,
    sizes: dict[str, int] | None = None,
) -> Observation:
    target = torch.zeros(1, 3, 16, 16) if target is None else target
    return Observation(
        target=target,
        reconstruction=target if reconstruction is None else reconstruction,
        bottleneck=BottleneckOutput(latent=torch.zeros(len(target), 1, 1, 1), indices=indices),
        codebook_sizes=sizes or {},
    )


def measure(metric: Metric, *observations: Observation) -> dict[str, float]:
    accumulator = metric.create()
    for seen in observations:
        metric.update(accumulator, seen)
    return {name: float(value) for name, value in accumulator.compute().items()}


def codes(*rows: list[int], sizes: dict[str, int] | None = None) -> Observation:
    """One image whose tokens of codebook g are ``rows[g]``."""
    indices = torch.tensor(rows)[None, :, None]
    return observation(indices=indices, sizes=sizes or {"only": 4})


def images(number: int, size: int) -> tuple[Tensor, Tensor]:
    target = torch.rand(number, 3, size, size) * 2 - 1
    return target, target + 0.3 * torch.randn_like(target)


def test_psnr_and_ssim_are_means_over_images_of_torchmetrics() -> None:
    pairs = [images(2, 16), images(3, 20)]
    seen = [observation(*pair) for pair in pairs]
    unit = [((x.clamp(-1, 1) + 1) / 2)[None] for pair in pairs for x in torch.stack(pair, 1).flatten(0, 1)]
    psnr = [peak_signal_noise_ratio(y, x, data_range=1.0) for x, y in zip(unit[::2], unit[1::2], strict=True)]
    ssim = [
        structural_similarity_index_measure(y, x, data_range=1.0) for x, y in zip(unit[::2], unit[1::2], strict=True)
    ]
    assert measure(PSNR(), *seen)["psnr"] == pytest.approx(sum(map(float, psnr)) / 5, rel=1e-6)
    assert measure(SSIM(), *seen)["ssim"] == pytest.approx(sum(map(float, ssim)) / 5, abs=1e-6)


def test_equal_images_are_perfect() -> None:
    seen = observation(images(2, 16)[0])
    assert measure(PSNR(), seen) == {"psnr": math.inf}
    assert measure(PSNRUint8(), seen) == {"psnr_uint8": math.inf}
    assert measure(SSIM(), seen)["ssim"] == pytest.approx(1.0, abs=1e-6)


def test_lpips_of_random_weights_says_so() -> None:
    metric = LPIPS(features.LPIPS(weights="random", widths=(4, 4, 8, 8, 8)))
    target, made = images(2, 16)
    far, near = measure(metric, observation(target, made)), measure(metric, observation(target))
    assert list(far) == ["lpips_random"]
    assert far["lpips_random"] > near["lpips_random"] == 0.0


def test_every_code_equally_often() -> None:
    seen = [codes([0, 1]), codes([2, 3])]
    assert measure(CodebookUsage(), *seen) == {"codebook_usage": 1.0, "codebook_usage/only": 1.0}
    assert measure(Perplexity(), *seen) == {"perplexity": 4.0, "perplexity/only": 4.0}
    assert measure(BitsPerImage(), *seen) == {"bits_per_image": 4.0, "bits_per_image_effective": 4.0}


def test_one_code_only() -> None:
    seen = codes([2, 2, 2])
    assert measure(CodebookUsage(), seen)["codebook_usage"] == 0.25
    assert measure(Perplexity(), seen)["perplexity"] == 1.0
    assert measure(BitsPerImage(), seen) == {"bits_per_image": 6.0, "bits_per_image_effective": 0.0}


def test_frequencies_of_one_half_and_two_quarters() -> None:
    seen = codes([0, 0, 1, 3])
    assert measure(Perplexity(), seen)["perplexity"] == pytest.approx(2**1.5)
    assert measure(BitsPerImage(), seen)["bits_per_image_effective"] == pytest.approx(6.0)


def test_codebooks_are_counted_apart_and_bits_summed() -> None:
    seen = codes([0, 1, 1, 0], [5, 5, 5, 5], sizes={"visual": 2, "semantic": 8})
    assert measure(CodebookUsage(), seen) == {"codebook_usage/visual": 1.0, "codebook_usage/semantic": 0.125}
    assert measure(Perplexity(), seen) == {"perplexity/visual": 2.0, "perplexity/semantic": 1.0}
    assert measure(BitsPerImage(), seen) == {
        "bits_per_image": 4 + 12,
        "bits_per_image_effective": 4.0,
        "bits_per_image/visual": 4.0,
        "bits_per_image/semantic": 12.0,
        "bits_per_image_effective/visual": 4.0,
        "bits_per_image_effective/semantic": 0.0,
    }


def test_usage_is_of_the_whole_evaluation_not_the_mean_of_batches() -> None:
    assert measure(CodebookUsage(), codes([0]), codes([0]), codes([1]))["codebook_usage"] == 0.5


def test_bits_are_a_mean_over_images_of_different_sizes() -> None:
    assert measure(BitsPerImage(), codes([0, 1]), codes([0, 1, 2, 3, 0, 1]))["bits_per_image"] == 8.0


def test_continuous_model_has_no_numbers_of_codes() -> None:
    for metric in (CodebookUsage(), Perplexity(), BitsPerImage()):
        assert measure(metric, observation()) == {}


def test_importing_metrics_does_not_import_torchmetrics() -> None:
    program = (
        "import sys; from smalti.metrics import Metric; from smalti.registry import classes;"
        "classes(Metric); import smalti.metrics.evaluation; assert 'torchmetrics' not in sys.modules"
    )
    run([sys.executable, "-c", program], check=True, timeout=60)
