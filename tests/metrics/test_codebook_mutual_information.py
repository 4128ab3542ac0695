"""Mutual information between codebooks: by hand, its chance level, whole evaluations, several ranks' shares."""

import math

import pytest
import torch

from smalti.metrics.codebook_mutual_information import CodebookMutualInformation
from tests.metrics.test_metrics import codes, measure, observation

SIZES = {"a": 4, "b": 4}
NAME, CHANCE = "codebook_mutual_information/a-b", "codebook_mutual_information_chance/a-b"


def of(tokens):
    """An observation of tokens (N, G) in one image."""
    return codes(*tokens.T.tolist(), sizes={name: 4 for name, _ in zip("abc", tokens.T, strict=False)})


def test_equal_codebooks_share_all_their_bits_and_independent_ones_none():
    grid = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    assert measure(CodebookMutualInformation(), of(grid))[NAME] == pytest.approx(0.0, abs=1e-12)
    twins = torch.arange(4).repeat(50)[:, None].expand(-1, 2)
    found = measure(CodebookMutualInformation(), of(twins))
    assert found[NAME] == pytest.approx(2.0)
    assert found[CHANCE] < 0.1


def test_by_hand():
    """p(0,0) = 1/2, p(1,0) = 1/4, p(1,1) = 1/4."""
    found = measure(CodebookMutualInformation(), of(torch.tensor([[0, 0], [0, 0], [1, 0], [1, 1]])))
    expected = 0.5 * math.log2(0.5 / (0.5 * 0.75)) + 0.25 * math.log2(0.25 / (0.5 * 0.75))
    assert found[NAME] == pytest.approx(expected + 0.25 * math.log2(0.25 / (0.5 * 0.25)))


def test_few_tokens_show_chance_and_not_meaning():
    tokens = torch.randint(0, 64, (200, 2))
    seen = codes(*tokens.T.tolist(), sizes={"a": 64, "b": 64})
    found = measure(CodebookMutualInformation(), seen)
    assert found[NAME] > 2.0
    assert found[NAME] == pytest.approx(found[CHANCE], abs=0.3)


def test_three_codebooks_have_three_pairs_and_one_has_none():
    found = measure(CodebookMutualInformation(), of(torch.randint(0, 4, (30, 3))))
    assert sorted(name.partition("/")[2] for name in found) == sorted(["a-b", "a-c", "b-c"] * 2)
    assert measure(CodebookMutualInformation(), codes([0, 1])) == {}
    assert measure(CodebookMutualInformation(), observation()) == {}


def test_batches_add_up_to_the_whole():
    tokens = torch.randint(0, 4, (60, 2))
    parts = [of(part) for part in tokens.split(7)]
    assert measure(CodebookMutualInformation(), *parts) == measure(CodebookMutualInformation(), of(tokens))


def test_gathered_ranks_add_up_to_the_whole():
    """What gathering does: the lists of all ranks in a row, as one tensor."""
    metric, tokens = CodebookMutualInformation(), torch.randint(0, 4, (60, 2))
    ranks = [metric.create() for _ in range(3)]
    for rank in ranks:
        metric.begin(rank, SIZES)
    for rank, part in zip(ranks[:2], tokens.split(30), strict=True):
        metric.update(rank, of(part))
    gathered = metric.create()
    metric.begin(gathered, SIZES)
    for kind in ("keys", "counts"):
        setattr(gathered, f"{kind}_1_a_b", torch.cat([getattr(rank, f"{kind}_1_a_b")[0] for rank in ranks]))
    gathered._update_count = 1
    assert {name: float(value) for name, value in gathered.compute().items()} == measure(metric, of(tokens))


def test_pairs_whose_names_run_together_are_told_apart() -> None:
    """``a`` with ``b_c`` and ``a_b`` with ``c`` are four codebooks."""
    sizes = {"a": 2, "b_c": 2, "a_b": 2, "c": 2}
    same, other = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    indices = torch.stack([same, same, same, other])[None, :, :, None]
    metric = CodebookMutualInformation()
    accumulator = metric.create()
    accumulator.update(indices, sizes)
    found = accumulator.compute()
    assert float(found["codebook_mutual_information/a-b_c"]) == pytest.approx(1.0)
    assert float(found["codebook_mutual_information/a_b-c"]) == pytest.approx(0.0)
