"""Frechet distance: recorded numbers, laws of normal distributions, and moments that any split of the rows gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smalti.metrics._moments import (
    Moments,
    add_rows,
    frechet_distance,
    merged,
    moments_of,
    new_total,
    total_of,
)
from smalti.metrics._moments_file import read_moments, write_moments
from smalti.metrics.fid_infinity import frechet_at_infinity, subset_sizes
from smalti.registry import UserError


def moments(features: Tensor, *cuts: int) -> Moments:
    """Moments of features (N, d), cut into parts that are counted apart; each part in batches of 7."""
    parts = []
    for start, end in zip([0, *cuts], [*cuts, len(features)], strict=True):
        total = new_total(features.shape[1])
        for batch in features[start:end].split(7):
            add_rows(total, batch)
        parts.append(total)
    return moments_of(merged(parts))


def normal(count: int, width: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=random) / width**0.5
    return torch.randn(count, width, generator=random) @ mix + 5.0


@pytest.mark.parametrize("case", ["full", "deficient"])
def test_is_the_recorded_number(golden: Any, case: str) -> None:
    features, numbers = golden("eval/evaluation.safetensors"), golden("eval/evaluation.json")
    made, real = (moments(features[f"features.{case}.{side}"]) for side in ("made", "real"))
    expected = numbers[f"{case}.fid"]
    assert frechet_distance(made, real).item() == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(real, made).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("cuts", [(), (1,), (250, 251), (0, 100, 100, 400)])
def test_any_split_gives_the_same_moments_and_distance(golden: Any, cuts: tuple[int, ...]) -> None:
    features = golden("eval/evaluation.safetensors")
    made, real = (features[f"features.full.{side}"] + 1000.0 for side in ("made", "real"))
    whole, parts = moments(made), moments(made, *cuts)
    rows = made.double()
    assert parts.count == len(made)
    torch.testing.assert_close(parts.mean, rows.mean(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(parts.covariance, torch.cov(rows.T), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(parts.covariance, whole.covariance, rtol=1e-12, atol=1e-13)
    distance = frechet_distance(whole, moments(real))
    torch.testing.assert_close(frechet_distance(parts, moments(real)), distance, rtol=1e-12, atol=0)


def test_of_commuting_covariances_it_is_that_of_their_roots() -> None:
    random = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(6, 6, generator=random, dtype=torch.float64)).Q
    first, second = (torch.rand(6, generator=random, dtype=torch.float64) for _ in range(2))
    shift = torch.randn(6, generator=random, dtype=torch.float64)
    one = Moments(count=99, mean=torch.zeros(6).double(), covariance=basis @ first.diag() @ basis.T)
    two = Moments(count=98, mean=shift, covariance=basis @ second.diag() @ basis.T)
    expected = shift.square().sum() + (first.sqrt() - second.sqrt()).square().sum()
    torch.testing.assert_close(frechet_distance(one, two), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("count", [2, 9, 40])
def test_from_itself_it_is_nothing_and_a_shift_costs_its_square(count: int) -> None:
    """Also without full rank: nothing is added to a diagonal."""
    features = normal(count, 16)
    shift = torch.randn(16)
    assert frechet_distance(moments(features), moments(features)).item() == pytest.approx(0.0, abs=1e-7)
    moved = frechet_distance(moments(features.double()), moments(features.double() + shift))
    assert moved.item() == pytest.approx(shift.double().square().sum().item(), rel=1e-7)


def test_directions_without_variance_cost_nothing() -> None:
    """A covariance with full rank and one without are taken apart in two ways."""
    made, real = normal(60, 6).double(), normal(50, 6, seed=1).double()
    basis = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64)).Q[:6]
    expected = frechet_distance(moments(made), moments(real))
    torch.testing.assert_close(frechet_distance(moments(made @ basis), moments(real @ basis)), expected)
    assert torch.linalg.cholesky_ex(moments(real).covariance).info == 0


def test_of_too_few_rows_or_of_numbers_that_are_none_it_is_none() -> None:
    good = moments(normal(20, 4))
    for bad in (normal(1, 4), normal(20, 4) / 0.0, normal(0, 4)):
        assert frechet_distance(good, moments(bad)).isnan()
        assert frechet_distance(moments(bad), good).isnan()


def test_files_of_parts_merge_into_the_whole(tmp_path: Path) -> None:
    features = normal(50, 6)
    for name, part in (("a", features[:20]), ("b", features[20:])):
        write_moments(tmp_path / f"{name}.npz", moments(part))
    read = [read_moments(tmp_path / f"{name}.npz") for name in "ab"]
    assert [part.count for part in read] == [20, 30]
    whole = moments_of(merged(map(total_of, read)))
    torch.testing.assert_close(whole.covariance, moments(features).covariance, rtol=1e-12, atol=1e-13)
    np.savez(tmp_path / "published.npz", mu=read[0].mean.numpy(), sigma=read[0].covariance.numpy())
    published = read_moments(tmp_path / "published.npz")
    assert torch.equal(published.covariance, read[0].covariance)
    with pytest.raises(ValueError, match="without the number of rows"):
        total_of(published)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mu": np.zeros(3)}, "has no 'sigma': it holds 'mu'"),
        ({"mu": np.zeros(3), "sigma": np.eye(2)}, r"expected \(d,\) and \(d, d\)"),
        ({"mu": np.zeros(2), "sigma": np.array([[1.0, 2.0], [0.0, 1.0]])}, "not symmetric"),
        ({"mu": np.array([np.nan]), "sigma": np.eye(1)}, "not finite"),
        ({"mu": np.array(["a"]), "sigma": np.eye(1)}, "expected numbers"),
        ({"mu": np.array([print]), "sigma": np.eye(1)}, "allow_pickle"),
    ],
)
def test_what_is_no_file_of_moments_is_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "moments.npz", **content)
    with pytest.raises(UserError, match=message):
        read_moments(tmp_path / "moments.npz")


def test_a_file_that_is_damaged_or_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file; expected an \.npz with 'mu' and 'sigma'"):
        read_moments(tmp_path / "moments.npz")
    for content in (b"", b"PK\x03\x04 and no more", b"text"):
        (tmp_path / "moments.npz").write_bytes(content)
        with pytest.raises(UserError, match="cannot read moments from"):
            read_moments(tmp_path / "moments.npz")
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(UserError, match="cannot read moments from"):
        read_moments(tmp_path / "one.npy")


def test_the_intercept_is_nearer_to_the_truth_than_the_distance() -> None:
    """Of two samples of one distribution, whose distance is 0 and whose measured one falls as 1 / N."""
    whole, intercepts = [], []
    for seed in range(4):
        real, made = normal(800, 16, seed=seed)[:400], normal(800, 16, seed=seed)[400:]
        whole.append(frechet_distance(moments(real), moments(made)).item())
        intercepts.append(frechet_at_infinity(real, made).item())
    assert min(whole) > 0.1
    assert max(map(abs, intercepts)) < 0.6 * min(whole)
    assert abs(sum(intercepts)) < 0.1 * sum(whole)


def test_the_intercept_of_equal_sets_is_nothing_and_of_distances_that_fall_as_one_over_n_exact(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features = normal(100, 4)
    assert frechet_at_infinity(features, features).item() == pytest.approx(0.0, abs=1e-9)
    counts: list[int] = []

    def falling(real: Moments, made: Moments) -> Tensor:
        assert real.count == made.count
        counts.append(real.count or 0)
        return torch.tensor(3.0 + 50.0 / counts[-1], dtype=torch.float64)

    monkeypatch.setattr("smalti.metrics.fid_infinity.frechet_distance", falling)
    assert frechet_at_infinity(features, features).item() == pytest.approx(3.0, rel=1e-12)
    assert counts == subset_sizes(100, 4, 10) == list(range(10, 101, 10))


@pytest.mark.parametrize(("count", "width"), [(2, 8), (5, 8), (20, 4), (100, 64), (50_000, 2048)])
def test_sizes_of_subsets_differ_and_end_with_all(count: int, width: int) -> None:
    sizes = subset_sizes(count, width, 10)
    assert sizes == sorted(set(sizes))
    assert sizes[0] >= 2
    assert sizes[-1] == count
    assert len(sizes) >= min(8, count // 2)
