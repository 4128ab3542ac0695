"""The nearest code: equal to the dense search, whatever the chunk, K or dtype."""

import pytest
import torch

from smalti.nn.code_search import nearest_code, row_chunks


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
