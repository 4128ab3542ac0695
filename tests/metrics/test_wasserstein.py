"""Laws of the Wasserstein distance, and the digits that are counted."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from smalti.data.digits import Digits
from smalti.data.transforms import Transform
from smalti.metrics._assignment import assignment
from smalti.metrics._set_metric import images_of
from smalti.metrics.digit_coverage import DigitCoverage, histogram_entropy
from smalti.metrics.sample_diversity import SampleDiversity
from smalti.metrics.sliced_wasserstein import SlicedWasserstein, sliced_wasserstein
from smalti.metrics.wasserstein import wasserstein


def points(seed: int, count: int = 12, width: int = 3) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 25), st.integers(0, 10_000), st.booleans())
def test_pairing_is_as_cheap_as_scipys(size: int, seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    cost = random.integers(0, 4, (size, size)).astype(float) if ties else random.normal(size=(size, size))
    columns = assignment(cost)
    assert sorted(columns) == list(range(size))
    rows, best = linear_sum_assignment(cost)
    assert cost[np.arange(size), columns].sum() == pytest.approx(cost[rows, best].sum(), abs=1e-9)


@pytest.mark.parametrize("distance", [wasserstein, sliced_wasserstein])
def test_distance_is_a_metric(distance) -> None:
    x, y, z = points(0), points(1), points(2)
    assert distance(x, x[torch.randperm(len(x))]).item() == pytest.approx(0.0, abs=1e-12)
    assert distance(x, y).item() == pytest.approx(distance(y, x).item())
    assert distance(x, y) <= distance(x, z) + distance(z, y) + 1e-12


@pytest.mark.parametrize("shift", [0.5, 2.0, 30.0])
def test_moving_everything_costs_the_way(shift: float) -> None:
    x, way = points(0), torch.tensor([3.0, 0.0, 4.0], dtype=torch.float64) / 5.0
    assert wasserstein(x, x + shift * way).item() == pytest.approx(shift)


def test_one_dimension_agrees_with_the_pairing() -> None:
    x, y = points(0, width=1), points(1, width=1)
    flat = wasserstein(x, y)
    lifted = wasserstein(torch.cat([x, 0 * x], dim=1), torch.cat([y, 0 * y], dim=1))
    assert flat.item() == pytest.approx(lifted.item())


def test_slices_never_exceed_the_whole() -> None:
    x, y = points(0, 30), points(1, 30)
    assert sliced_wasserstein(x, y) <= wasserstein(x, y)


@pytest.mark.parametrize("distance", [wasserstein, sliced_wasserstein])
def test_unequal_samples_are_refused(distance) -> None:
    with pytest.raises(ValueError, match="equal shapes"):
        distance(points(0), points(1, 5))


def test_floor_is_the_distance_between_two_parts_of_the_data() -> None:
    metric = SlicedWasserstein(reference=Digits("train"))
    real, _ = images_of(Digits("held_out"), Transform())
    train, _ = images_of(Digits("train"), Transform())
    found = metric.summarize(real, train[: len(real)])
    assert found["sliced_wasserstein"].item() == pytest.approx(found["sliced_wasserstein_floor"].item(), rel=0.3)
    noise = torch.rand_like(real) * 2 - 1
    assert metric.summarize(real, noise)["sliced_wasserstein"] > 10 * found["sliced_wasserstein_floor"]


def test_real_digits_cover_all_classes_evenly_and_one_digit_covers_one() -> None:
    real, labels = images_of(Digits("held_out"), Transform())
    assert labels is not None
    found = DigitCoverage().summarize(real, real)
    assert found["digit_coverage"] == 10
    assert found["digit_coverage/entropy"] > 0.99
    threes = DigitCoverage().summarize(real, real[labels == 3])
    assert threes["digit_coverage"] == 1
    assert threes["digit_coverage/entropy"] < 0.2


def test_collapse_is_seen_and_the_data_itself_has_diversity_one() -> None:
    real, _ = images_of(Digits("held_out"), Transform())
    diversity = SampleDiversity().summarize
    assert diversity(real, real)["sample_diversity"] == 1.0
    assert diversity(real, real[:1].expand_as(real))["sample_diversity"] == 0.0
    assert histogram_entropy(torch.ones(7)).item() == pytest.approx(1.0)
