"""The nearest code: equal to the dense search, whatever the chunk, K or dtype."""

import pytest
import torch

from smalti.nn.code_search import largest_product, nearest_code, row_chunks, sampled_code


@pytest.mark.parametrize("codes", [1, 5, 128, 129, 300, 512])
@pytest.mark.parametrize("chunk", [1, 7, 50, None])
def test_equals_dense_search(codes, chunk):
    z, codebook = torch.randn(50, 4, dtype=torch.float64), torch.randn(codes, 4, dtype=torch.float64)
    assert torch.equal(nearest_code(z, codebook, chunk=chunk), torch.cdist(z, codebook).argmin(dim=1))


@pytest.mark.parametrize("codes", [16, 400])
def test_lowest_index_wins_ties(codes):
    codebook = torch.randn(codes, 1).repeat(2, 1)
    assert (nearest_code(codebook, codebook) < codes).all()
    assert (nearest_code(torch.randn(20, 3), torch.ones(codes, 3)) == 0).all()


def test_same_indices_under_autocast_and_without_grad_tracking():
    z, codebook = torch.randn(100, 8, requires_grad=True), torch.randn(64, 8)
    expected = nearest_code(z, codebook)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest_code(z, codebook), expected)
    assert not expected.requires_grad


def test_peak_memory_is_a_chunk(monkeypatch):
    largest = []
    original = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *args: largest.append(original(*args)) or largest[-1])
    nearest_code(torch.randn(500, 2), torch.randn(256, 2), chunk=10)
    assert max(scores.numel() for scores in largest) == 10 * 256


def test_no_tokens_give_no_indices():
    assert nearest_code(torch.zeros(0, 2), torch.zeros(3, 2)).shape == (0,)


def test_chunks_cover_all_rows_once():
    for rows, chunk in ((10, 3), (1, 5), (6, None), (0, 2)):
        covered = [i for part in row_chunks(rows, 8, torch.device("cpu"), chunk) for i in range(rows)[part]]
        assert covered == list(range(rows))
    with pytest.raises(ValueError, match="chunk=0"):
        list(row_chunks(3, 3, torch.device("cpu"), chunk=0))


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_codes_are_drawn_with_the_probability_of_their_distance(temperature):
    torch.manual_seed(0)
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-0.5, 1.0], [2.0, 2.0]])
    point, draws = torch.tensor([[0.4, 0.3]]), 40_000
    counts = torch.bincount(sampled_code(point.expand(draws, 2), codes, temperature, chunk=999), minlength=4)
    expected = torch.softmax(-(point - codes).square().sum(dim=1) / temperature, dim=0)
    # five standard deviations of a count
    assert ((counts / draws - expected).abs() <= 5 * (expected * (1 - expected) / draws).sqrt() + 1e-9).all()


def test_draws_of_a_small_temperature_are_the_nearest_codes():
    z, codes = torch.randn(50, 3), torch.randn(9, 3)
    assert torch.equal(sampled_code(z, codes, 1e-7), nearest_code(z, codes))


@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_largest_product_is_that_of_a_dense_search(chunk):
    z, codes, offset = torch.randn(30, 3), torch.randn(300, 3), torch.randn(300)
    assert torch.equal(largest_product(z, codes, chunk=chunk), (z @ codes.T).argmax(dim=1))
    assert torch.equal(largest_product(z, codes, offset, chunk=chunk), (z @ codes.T + offset).argmax(dim=1))
