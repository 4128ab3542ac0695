"""Tiles: weights sum to one, what fits one tile is exact, convolutions of small reach show no seam."""

from fractions import Fraction

import pytest
import torch
from torch import nn

from smalti.nn.tiling import axis, tiled


@pytest.mark.parametrize("length", [1, 4, 5, 7, 12, 31])
@pytest.mark.parametrize(("size", "overlap"), [(4, 0), (4, 1), (4, 2), (4, 3), (5, 2), (1, 0)])
def test_tiles_cover_the_side_and_their_weights_sum_to_one(length: int, size: int, overlap: int) -> None:
    found = axis(length, size, overlap)
    total, seen = torch.zeros(length, dtype=torch.float64), torch.zeros(length)
    for start, weight in zip(found.starts, found.weights, strict=True):
        assert len(weight) == found.size == min(size, length)
        assert (weight > 0).all()
        total[start : start + found.size] += weight
        seen[start : start + found.size] += 1
    torch.testing.assert_close(total, torch.ones_like(total))
    assert (total[seen == 1] == 1).all(), "where there is one tile it counts whole"
    ends = [start + found.size for start in found.starts]
    shared = [end - start for end, start in zip(ends, found.starts[1:], strict=False)]
    assert all(each >= overlap for each in shared)
    assert (found.starts[0], ends[-1]) == (0, length)


@pytest.mark.parametrize(("size", "overlap"), [(4, 4), (4, -1)])
def test_an_overlap_of_a_whole_tile_is_an_error(size: int, overlap: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 3"):
        axis(9, size, overlap)


def test_blending_is_linear_across_the_overlap() -> None:
    found, fall = axis(12, 8, 4), torch.tensor([0.875, 0.625, 0.375, 0.125], dtype=torch.float64)
    torch.testing.assert_close(found.weights[0][4:], fall)
    torch.testing.assert_close(found.weights[1][:4], fall.flip(0))


UP = nn.Upsample(scale_factor=3, mode="nearest")
DOWN = nn.AvgPool2d(4)


@pytest.mark.parametrize(("work", "scale", "sides"), [(UP, Fraction(3), (9, 14)), (DOWN, Fraction(1, 4), (36, 56))])
def test_what_looks_at_single_positions_is_the_same_in_tiles(
    work: nn.Module, scale: Fraction, sides: tuple[int, int]
) -> None:
    value = torch.randn(2, 3, *sides, dtype=torch.float64)
    torch.testing.assert_close(tiled(work, value, scale, 5, 2), work(value), rtol=0, atol=1e-14)
    constant = torch.full_like(value, 0.7)
    torch.testing.assert_close(tiled(work, constant, scale, 5, 2), work(constant), rtol=0, atol=1e-14)


def test_one_tile_is_the_whole_bit_for_bit() -> None:
    value = torch.randn(1, 2, 5, 4)
    assert torch.equal(tiled(nn.GroupNorm(1, 2), value, Fraction(1), 5, 2), nn.GroupNorm(1, 2)(value))


def test_convolutions_are_exact_where_one_tile_reaches_and_far_from_its_border() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 1, 3, padding=1)).requires_grad_(
        False
    )
    value = torch.randn(1, 1, 8, 40)
    whole, parts = network(value), tiled(network, value, Fraction(1), 16, 4)
    starts = axis(40, 16, 4).starts
    borders = [edge for start in starts for edge in (start, start + 16) if edge not in {0, 40}]
    near = torch.tensor([min(abs(column + 0.5 - edge) for edge in borders) < 2 for column in range(40)])
    single = torch.tensor([sum(start <= column < start + 16 for start in starts) == 1 for column in range(40)])
    torch.testing.assert_close(parts[..., single], whole[..., single], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(parts[..., ~near], whole[..., ~near], rtol=1e-5, atol=1e-6)
    assert single.any()
    assert not torch.allclose(parts[..., near], whole[..., near], atol=1e-4), "a border has zeros beyond it"
