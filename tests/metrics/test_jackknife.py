"""Intervals by leaving out groups: what is left out, how often they hold, any split of the images, both routes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from smalti.metrics._frechet_rows import distances_left_out, total_of_rows
from smalti.metrics._jackknife import check_groups, ends, left_out, means_left_out, student
from smalti.metrics._moments import Moments, frechet_distance, moments_of
from smalti.metrics.fid import FID
from smalti.metrics.inception_score import InceptionScore
from smalti.metrics.kid import distances_left_out as kernels_left_out
from smalti.metrics.kid import kernel_distance
from smalti.metrics.precision_recall import PrecisionRecall
from tests.metrics.test_feature_metrics import Averages, observation

stats = pytest.importorskip("scipy.stats")


def features(seed: int, count: int, width: int = 5, shift: float = 0.0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=torch.Generator().manual_seed(7))
    return torch.randn(count, width, generator=random) @ mixing + shift


def moments(rows: Tensor) -> Moments:
    return moments_of(total_of_rows(rows))


@pytest.mark.parametrize("count", [4, 7, 60, 200])  # fewer images than features, about as many, more
@pytest.mark.parametrize("groups", [2, 6])
@pytest.mark.parametrize("stored", [False, True])
def test_distances_without_a_group_are_those_of_what_is_left(count: int, groups: int, stored: bool) -> None:
    width = 8
    real, made = features(0, count, width), features(1, count, width, shift=0.5)
    reference: Tensor | Moments = moments(features(2, 300, width)) if stored else real
    found = distances_left_out(reference, made, groups)
    kept = [torch.arange(count) % min(groups, count) != group for group in range(min(groups, count))]
    for one, rows in zip(found, kept, strict=True):
        of = reference if isinstance(reference, Moments) else moments(real[rows])
        assert float(one) == pytest.approx(float(frechet_distance(moments(made[rows]), of)), rel=1e-6)


@pytest.mark.parametrize(("count", "groups"), [(3, 20), (41, 20), (64, 4)])
def test_kernels_without_a_group_are_those_of_what_is_left(count: int, groups: int) -> None:
    real, made = features(0, count), features(1, count, shift=0.3)
    whole, without = kernels_left_out(made, real, groups)
    assert float(whole) == pytest.approx(float(kernel_distance(made, real)), rel=1e-12)
    expected = left_out(count, groups, lambda rows: kernel_distance(made[rows], real[rows]))
    torch.testing.assert_close(without, expected, rtol=1e-9, atol=1e-12, equal_nan=True)


def of_frechet(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    return frechet_distance(moments(made), moments(real)), distances_left_out(real, made, 20)


def of_kernels(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    return kernels_left_out(made, real, 8)


def of_means(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    return made[:, 0].double().mean(), means_left_out(made[:, 0], 20)


@pytest.mark.parametrize("number", [of_frechet, of_kernels, of_means])
def test_an_interval_holds_what_repeating_gives_as_often_as_it_says(
    number: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> None:
    """Of pairs of images; around the mean over repetitions with as many images, so that no bias plays a part."""
    values, between = [], []
    for seed in range(150):
        real = features(1000 + seed, 300)
        value, without = number(real, 0.8 * real + features(5000 + seed, 300, shift=0.2) * 0.3)
        found = ends("x", value, without)
        values.append(float(value))
        between.append((float(found["x_low"]), float(found["x_high"])))
    mean = sum(values) / len(values)
    held = sum(low <= mean <= high for low, high in between)
    assert 133 <= held <= 149  # 95 % of 150, give or take 3 deviations


def test_students_quantiles() -> None:
    for freedom in (1, 2, 5, 10, 19, 20, 25, 49, 99, 999):
        assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=1e-3)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_too_few_images_have_no_interval(count: int) -> None:
    assert len(left_out(count, 20, lambda rows: rows.sum())) == 0
    assert ends("x", torch.tensor(1.0), means_left_out(torch.ones(count), 20)) == {}
    assert len(kernels_left_out(features(0, count), features(1, count), 20)[1]) == 0


def test_a_single_group_is_none() -> None:
    assert [check_groups(groups) for groups in (0, 2, 20)] == [0, 2, 20]
    for metric in (FID, PrecisionRecall, InceptionScore):
        with pytest.raises(ValueError, match="groups=1: expected 0, for no interval, or at least 2"):
            metric(Averages(), groups=1)


@pytest.mark.parametrize("metric", [FID, PrecisionRecall])
def test_any_split_gives_the_same_interval_and_value(metric: type) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.rand(12, 3, 8, 8, generator=random) * 2 - 1
    made = images * 0.8 + 0.1 * torch.randn(images.shape, generator=random)
    whole = values_of(metric(Averages(), groups=5), images, made, [slice(0, 12)])
    split = values_of(metric(Averages(), groups=5), images, made, [slice(7, 12), slice(0, 1), slice(1, 7)])
    assert split == pytest.approx(whole, rel=1e-12)
    name = next(iter(whole))
    assert whole[f"{name}_low"] <= whole[name] <= whole[f"{name}_high"]
    plain = values_of(metric(Averages()), images, made, [slice(0, 12)])
    assert plain[name] == pytest.approx(whole[name], rel=1e-12)
    assert not any(key.endswith("_low") for key in plain)
    assert all(math.isfinite(value) for value in whole.values())


def values_of(metric: Any, images: Tensor, made: Tensor, parts: Sequence[slice]) -> dict[str, float]:
    accumulator = metric.create()
    for rows in parts:
        metric.update(accumulator, observation(images[rows], made[rows]))
    return {name: float(value) for name, value in accumulator.compute().items()}
