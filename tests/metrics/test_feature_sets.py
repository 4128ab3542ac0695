"""Numbers of two sets of features: recorded ones, those of plain formulas, and laws."""

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor

from smalti.metrics import _stores, _tiles
from smalti.metrics._neighbours import inside, radii
from smalti.metrics.density_coverage import density_coverage
from smalti.metrics.inception_score import inception_score
from smalti.metrics.kid import kernel_distance, subset_distances
from smalti.metrics.precision_recall import precision_recall


@pytest.fixture(params=[2048, 7], ids=["one tile", "many"])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Rows of a tile: what is found must not depend on them."""
    monkeypatch.setattr(_tiles, "TILE", request.param)
    return int(request.param)


def sets(golden: Any, case: str) -> tuple[Tensor, Tensor, dict[str, float]]:
    features, numbers = golden("eval/evaluation.safetensors"), golden("eval/evaluation.json")
    own = {key.removeprefix(f"{case}."): value for key, value in numbers.items() if key.startswith(case)}
    return features[f"features.{case}.made"], features[f"features.{case}.real"], own


@pytest.mark.parametrize("case", ["full", "deficient"])
def test_kernel_distance_is_the_recorded_number(golden: Any, case: str) -> None:
    made, real, numbers = sets(golden, case)
    first = min(len(made), len(real))
    expected = numbers[f"mmd2_unbiased_first_{first}"]
    assert kernel_distance(made[:first], real[:first]).item() == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_the_mean_over_pairs(tile: int) -> None:
    x, y = torch.randn(11, 3, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64) + 0.5

    def k(a: Tensor, b: Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    pairs = [[k(a, b) for a, b in combinations(points, 2)] for points in (x, y)]
    across = [k(a, b) for a in x for b in y]
    expected = sum(sum(own) / len(own) for own in pairs) - 2 * sum(across) / len(across)
    assert kernel_distance(x, y).item() == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(y, x).item() == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(x[:1], y).isnan()


def test_kernel_distance_of_subsets_is_of_different_rows_and_always_the_same() -> None:
    x, y = torch.randn(40, 4), torch.randn(30, 4) + 0.2
    found = subset_distances(x, y, subsets=200, size=20)
    assert found.shape == (200,)
    assert torch.equal(found, subset_distances(x, y, subsets=200, size=20))
    assert not torch.equal(found, subset_distances(x, y, subsets=200, size=20, seed=1))
    assert len(found.unique()) == 200
    # Without a bias the mean over subsets is that of all pairs, whatever their size.
    assert found.mean().item() == pytest.approx(kernel_distance(x, y).item(), abs=4 * found.std().item() / 200**0.5)
    whole = subset_distances(x, y, subsets=2, size=50)
    torch.testing.assert_close(whole, kernel_distance(x, y).expand(2), rtol=1e-12, atol=0)


@pytest.mark.parametrize("case", ["full", "deficient"])
def test_precision_and_recall_are_the_recorded_ones(golden: Any, case: str) -> None:
    made, real, numbers = sets(golden, case)
    precision, recall = precision_recall(real, made, k=3)
    assert precision.float().item() == torch.tensor(numbers["precision"]).item()
    assert recall.float().item() == torch.tensor(numbers["recall"]).item()
    assert precision_recall(made, real, k=3) == (recall, precision)


def test_radii_and_balls_are_those_of_all_distances(tile: int) -> None:
    points, queries = torch.randn(30, 5, dtype=torch.float64) + 100.0, torch.randn(20, 5, dtype=torch.float64) + 100.0
    points[3] = points[17]  # an equal point is a neighbour, the point itself is none
    own = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    expected = own.fill_diagonal_(torch.inf).sort(dim=1).values
    for k in (1, 4):
        torch.testing.assert_close(radii(points, k), expected[:, k - 1].square(), rtol=1e-9, atol=1e-12)
    held = torch.cdist(queries, points) <= expected[:, 3]
    of_query, of_ball = inside(queries, points, radii(points, 4))
    assert torch.equal(of_query, held.sum(dim=1))
    assert torch.equal(of_ball, held.sum(dim=0))
    assert torch.equal(radii(points[:1], 3), torch.zeros(1, dtype=torch.float64))


def test_density_and_coverage_are_counts_of_balls(tile: int) -> None:
    real, made = torch.randn(40, 3, dtype=torch.float64), torch.randn(25, 3, dtype=torch.float64)
    reach = torch.cdist(real, real).fill_diagonal_(torch.inf).sort(dim=1).values[:, 4]
    held = torch.cdist(real, made) < reach[:, None]
    density, coverage = density_coverage(real, made, k=5)
    assert density.item() == pytest.approx(held.sum().item() / (5 * 25))
    assert coverage.item() == pytest.approx(held.any(dim=1).double().mean().item())


def test_equal_sets_are_precise_complete_and_dense() -> None:
    features = torch.randn(200, 3, dtype=torch.float64)
    assert precision_recall(features, features) == (1.0, 1.0)
    assert density_coverage(features, features, k=5) == (1.0, 1.0)  # each ball holds its own and four nearer ones
    far = features + 100.0
    assert precision_recall(features, far) == (0.0, 0.0)
    assert density_coverage(features, far) == (0.0, 0.0)


@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_what_lies_on_a_border_is_near_but_in_no_ball(tile: int, shift: float) -> None:
    """Whole numbers in three dimensions: most distances occur many times. Numbers by exact counting in integers."""
    random = torch.Generator().manual_seed(0)
    sides = [torch.randint(0, 4, (count, 3), generator=random) for count in (40, 25)]
    real, made = (side.double() / 7 + shift for side in sides)  # no distance is a number of finitely many bits

    def squares(one: Tensor, other: Tensor) -> Tensor:
        return (one[:, None] - other).square().sum(dim=2)

    reach = [squares(side, side).sort(dim=1).values[:, 3:4] for side in sides]
    across, back = squares(*sides), squares(*reversed(sides))
    assert (across == reach[0]).any()
    near = (across <= reach[0]).any(dim=0), (back <= reach[1]).any(dim=0)
    assert precision_recall(real, made, k=3) == tuple(side.double().mean() for side in near)
    within = across < reach[0]
    expected = within.sum().double() / (3 * 25), within.any(dim=1).double().mean()
    torch.testing.assert_close(density_coverage(real, made, k=3), expected)
    assert density_coverage(real[:1].expand(9, 3), real[:1].expand(8, 3)) == (0.0, 0.0)


@pytest.mark.parametrize("measure", [precision_recall, density_coverage])
def test_of_features_that_are_no_numbers_there_is_none(measure: Any) -> None:
    features = torch.randn(9, 2)
    broken = features.clone()
    broken[4, 1] = torch.nan
    for real, made in ((features, broken), (broken, features)):
        assert all(value.isnan() for value in measure(real, made))


def test_inception_score_is_the_recorded_one(golden: Any) -> None:
    logits, expected = golden("eval/evaluation.safetensors")["logits"], golden("eval/evaluation.json")["isc"]
    score, deviation = inception_score(logits, splits=10, seed=None)
    assert score.item() == pytest.approx(expected["inception_score_mean"], rel=1e-9)
    assert deviation.item() == pytest.approx(expected["inception_score_std"], rel=1e-9)


def test_inception_score_shuffles_by_its_seed_and_cuts_evenly() -> None:
    logits = 5 * torch.randn(23, 6)
    order = torch.randperm(23, generator=torch.Generator().manual_seed(4))
    assert inception_score(logits, splits=4, seed=4) == inception_score(logits[order], splits=4, seed=None)
    one, none = inception_score(logits, splits=1, seed=4)
    torch.testing.assert_close(one, inception_score(logits, splits=1, seed=None)[0], rtol=1e-12, atol=0)
    assert none == 0.0
    parts = [inception_score(part, splits=1, seed=None)[0] for part in logits.split([5, 6, 6, 6])]
    mean = inception_score(logits, splits=4, seed=None)[0]
    torch.testing.assert_close(mean, torch.stack(parts).mean(), rtol=1e-12, atol=0)


def test_inception_score_is_one_of_equal_images_and_the_number_of_classes_at_best() -> None:
    assert inception_score(torch.ones(8, 5) * 3, splits=2)[0].item() == pytest.approx(1.0)
    best, _ = inception_score(torch.eye(5).repeat(4, 1) * 1e4, splits=1)
    assert best.item() == pytest.approx(5.0)


def test_large_features_go_to_a_file_and_come_back_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    from smalti.metrics._feature_accumulators import FeatureSets

    random = torch.Generator().manual_seed(0)
    batches = [(torch.randn(3, 5, generator=random), torch.randn(3, 5, generator=random)) for _ in range(8)]
    keys = torch.randperm(24, generator=random).split(3)

    def kept(limit: int) -> tuple[FeatureSets, dict[str, Tensor]]:
        monkeypatch.setattr(_stores, "MOST_IN_MEMORY", limit)
        sets = FeatureSets(lambda real, made: {"real": real, "made": made})
        for (real, made), key in zip(batches, keys, strict=True):
            sets.update(real, made, key)
        return sets, sets.compute()

    memory, expected = kept(2**20)
    files, found = kept(300)  # two and a half batches
    assert len(memory.real) == 8
    assert len(files.real) < 8
    order = torch.cat(keys).argsort()
    assert torch.equal(expected["real"], torch.cat([real for real, _ in batches])[order])
    for side in ("real", "made"):
        assert torch.equal(found[side], expected[side])
    assert (files.images, files.width) == (24, 5)


def test_states_that_are_put_back_are_gone_on_with(monkeypatch: pytest.MonkeyPatch) -> None:
    from smalti.metrics._feature_accumulators import FeatureMoments, FeatureSets

    monkeypatch.setattr(_stores, "MOST_IN_MEMORY", 300)
    rows, keys = torch.randn(30, 4), torch.randperm(30)

    def moments() -> FeatureMoments:
        return FeatureMoments(lambda real, made: {"found": made.covariance})

    def sets() -> FeatureSets:
        return FeatureSets(lambda real, made: {"found": made})

    for make, more in ((moments, ()), (sets, (keys,))):

        def fed(accumulator: Any, parts: range, more: tuple[Tensor, ...] = more) -> Any:
            for part in parts:
                some = slice(5 * part, 5 * part + 5)
                accumulator.update(None, rows[some], *(each[some] for each in more))
            return accumulator

        first, second = fed(make(), range(3)), make()
        for name in first._defaults:
            setattr(second, name, getattr(first, name))
        whole = fed(make(), range(6)).compute()["found"]
        assert torch.equal(fed(second, range(3, 6)).compute()["found"], whole)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_stores.os, "posix_fallocate", full, raising=False)
    with pytest.raises(ValueError, match=r"no room for 1 MiB of features in .*No space left"):
        _stores.spilled([torch.zeros(1024, 256)])
