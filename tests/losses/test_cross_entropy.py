"""Cross-entropy of tokens: the mean over codebooks, smoothing and ignored places by formulas written out."""

import math

import pytest
import torch

from smalti.losses.cross_entropy import CrossEntropy, by_codebook, cross_entropy
from smalti.outputs import LossValue

SIZES = {"visual": 5, "semantic": 7, "high": 3}


def example(batch=3, side=2):
    generator = torch.Generator().manual_seed(0)

    def scores(size):
        return torch.randn(batch, side, side, size, generator=generator, dtype=torch.float64)

    logits = {name: scores(size) for name, size in SIZES.items()}
    planes = [torch.randint(size, (batch, side, side), generator=generator) for size in SIZES.values()]
    return logits, torch.stack(planes, dim=1)


def log_probabilities(logits, indices):
    """Codebook -> log p of each code that was there, place by place."""
    found = {}
    for plane, (name, scores) in enumerate(logits.items()):
        log_p = scores - scores.exp().sum(dim=-1, keepdim=True).log()
        found[name] = torch.tensor(
            [
                log_p[b, y, x, indices[b, plane, y, x]]
                for b in range(len(indices))
                for y in range(indices.shape[2])
                for x in range(indices.shape[3])
            ]
        )
    return found


def test_total_is_the_mean_over_codebooks_of_minus_log_p_of_the_codes():
    logits, indices = example()
    value = CrossEntropy()(logits, indices)
    assert isinstance(value, LossValue)
    expected = {name: -found.mean() for name, found in log_probabilities(logits, indices).items()}
    assert list(value.parts) == list(SIZES)
    for name, part in value.parts.items():
        torch.testing.assert_close(part, expected[name])
    torch.testing.assert_close(value.total, torch.stack(list(expected.values())).mean())
    assert torch.equal(value.total, cross_entropy(logits, indices))


def test_a_model_that_knows_nothing_pays_log_k():
    logits = {name: torch.zeros(2, 3, 3, size) for name, size in SIZES.items()}
    found = by_codebook(logits, torch.ones(2, len(SIZES), 3, 3, dtype=torch.int64))
    assert {name: pytest.approx(math.log(size), abs=1e-6) for name, size in SIZES.items()} == {
        name: value.item() for name, value in found.items()
    }


def test_smoothing_mixes_the_code_with_the_mean_over_all_codes():
    logits, indices = example()
    plain = log_probabilities(logits, indices)
    smoothed = by_codebook(logits, indices, label_smoothing=0.3)
    for name, scores in logits.items():
        uniform = torch.log_softmax(scores, dim=-1).mean()
        torch.testing.assert_close(smoothed[name], -0.7 * plain[name].mean() - 0.3 * uniform)


def test_ignored_places_count_in_no_mean_and_get_no_gradient():
    logits, indices = example()
    indices[0, 1] = -1
    logits["semantic"].requires_grad_()
    found = by_codebook(logits, indices, ignore_index=-1)
    rest = by_codebook({name: scores[1:] for name, scores in logits.items()}, indices[1:])
    torch.testing.assert_close(found["semantic"], rest["semantic"])
    (gradient,) = torch.autograd.grad(found["semantic"], logits["semantic"])
    assert not gradient[0].any()
    assert gradient[1:].all()


def test_a_codebook_whose_places_are_all_ignored_costs_nothing():
    logits, indices = example()
    found = by_codebook(logits, torch.full_like(indices, -1), ignore_index=-1)
    assert all(value == 0.0 for value in found.values())


def test_micro_batches_of_equal_size_add_up_unless_places_are_ignored():
    logits, indices = example(batch=4)
    halves = [slice(0, 2), slice(2, 4)]
    loss = CrossEntropy()
    parts = [loss({name: scores[half] for name, scores in logits.items()}, indices[half]).total for half in halves]
    torch.testing.assert_close(loss(logits, indices).total, torch.stack(parts).mean())
    assert not loss.looks_at(("logits", "indices"))
    assert "not ignored" in CrossEntropy(ignore_index=-1).looks_at(("logits", "indices"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda logits, indices: (next(iter(logits.values())), indices), "logits=Tensor: expected a mapping"),
        (lambda logits, indices: ({}, indices), "logits=dict: expected a mapping"),
        (
            lambda logits, indices: (logits, indices[:, :2]),
            r"indices with shape \(3, 2, 2, 2\): expected \(B, 3, h, w\)",
        ),
        (lambda logits, indices: (logits, indices[0]), r"expected \(B, 3, h, w\) for visual, semantic, high"),
        (
            lambda logits, indices: ({**logits, "high": logits["high"].permute(0, 3, 1, 2)}, indices),
            r"logits of 'high' with shape \(3, 3, 2, 2\): expected \(3, 2, 2, K\)",
        ),
    ],
)
def test_shapes_that_do_not_belong_together_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        cross_entropy(*change(*example()))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_smoothing_leaves_something_of_the_target(smoothing):
    with pytest.raises(ValueError, match="label_smoothing"):
        CrossEntropy(label_smoothing=smoothing)
