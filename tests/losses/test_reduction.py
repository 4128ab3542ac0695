"""Reductions and weights: the laws that every weighted loss inherits."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from smalti.losses._reduction import broadcast_weight, reduce

SHAPE = (3, 2, 4, 5)
WEIGHT_SHAPES = [(3,), (3, 1, 1, 1), (3, 1, 4, 5), SHAPE]


def values():
    return torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def weights(shape):
    return torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1


def full(shape):
    w = weights(shape)
    return (w.view(3, 1, 1, 1) if w.ndim == 1 else w).expand(SHAPE)


@pytest.mark.parametrize("shape", WEIGHT_SHAPES)
def test_every_weight_shape_means_its_expansion(shape):
    for reduction in ("none", "mean", "sum", "batch_sum"):
        small, large = (
            reduce(values(), weights(shape), reduction=reduction),
            reduce(values(), full(shape), reduction=reduction),
        )
        torch.testing.assert_close(small, large)


@pytest.mark.parametrize("shape", WEIGHT_SHAPES)
def test_formulas(shape):
    losses, w = values(), full(shape)
    torch.testing.assert_close(reduce(losses, weights(shape), reduction="none"), losses * w)
    torch.testing.assert_close(reduce(losses, weights(shape), reduction="sum"), (losses * w).sum())
    torch.testing.assert_close(reduce(losses, weights(shape), reduction="batch_sum"), (losses * w).sum() / 3)
    torch.testing.assert_close(reduce(losses, weights(shape)), (losses * w).sum() / w.sum())
    torch.testing.assert_close(
        reduce(losses, weights(shape), weighting="mean_of_weighted"), (losses * w).sum() / losses.numel()
    )
    by_sample = torch.stack([(losses[n] * w[n]).sum() / w[n].sum() for n in range(3)]).mean()
    torch.testing.assert_close(reduce(losses, weights(shape), per_sample=True), by_sample)


@given(st.floats(0.01, 100.0))
def test_weighted_mean_ignores_the_scale_of_weights_and_mean_of_weighted_follows_it(factor):
    w = weights(SHAPE)
    torch.testing.assert_close(reduce(values(), factor * w), reduce(values(), w))
    scaled = reduce(values(), factor * w, weighting="mean_of_weighted")
    torch.testing.assert_close(scaled, factor * reduce(values(), w, weighting="mean_of_weighted"))


@given(st.floats(-5.0, 5.0))
def test_weighted_mean_of_a_constant_is_the_constant(constant):
    for per_sample in (False, True):
        mean = reduce(torch.full(SHAPE, constant, dtype=torch.float64), weights((3, 1, 4, 5)), per_sample=per_sample)
        assert mean.item() == pytest.approx(constant, abs=1e-9)


def test_empty_mask_is_zero_with_zero_gradient():
    losses = values().requires_grad_()
    for per_sample in (False, True):
        loss = reduce(losses, torch.zeros(3, 1, 4, 5), per_sample=per_sample)
        (gradient,) = torch.autograd.grad(loss, [losses])
        assert loss == 0.0
        assert not gradient.any()


def test_sample_with_an_empty_mask_counts_as_zero_per_sample():
    mask = torch.tensor([1.0, 1.0, 0.0])
    assert reduce(torch.ones(SHAPE), mask, per_sample=True).item() == pytest.approx(2.0 / 3.0)
    assert reduce(torch.ones(SHAPE), mask).item() == pytest.approx(1.0)


def test_boolean_and_integer_masks_weigh():
    mask = torch.tensor([True, False, True])
    torch.testing.assert_close(reduce(values(), mask), values()[mask].mean())
    torch.testing.assert_close(reduce(values(), mask.long()), values()[mask].mean())


def test_masked_out_elements_get_no_gradient():
    losses = values().requires_grad_()
    mask = (weights((3, 1, 4, 5)) > 0.5).double()
    (gradient,) = torch.autograd.grad(reduce(losses, mask), [losses])
    assert torch.equal(gradient != 0.0, mask.expand(SHAPE).bool())


@pytest.mark.parametrize("shape", [(), (1,), (4,), (4, 5), (1, 2, 4, 5), (3, 2, 1, 1), (3, 1, 4, 1), (3, 2, 4, 5, 1)])
def test_any_other_weight_shape_is_an_error(shape):
    with pytest.raises(ValueError, match=r"weight with shape \(.*\): expected shape \(3,\) or \(3, 1, 1, 1\)"):
        reduce(values(), torch.ones(shape))


def test_weight_per_sample_fits_values_with_any_number_of_axes():
    for shape in ((3,), (3, 1), (3, 1, 1, 1)):
        assert broadcast_weight(torch.ones(shape), torch.zeros(3)).shape == (3,)
        assert broadcast_weight(torch.ones(shape), torch.zeros(3, 7)).shape == (3, 1)


def test_contradicting_or_unknown_options_are_errors():
    with pytest.raises(ValueError, match="reduction='avg': expected 'none', 'mean', 'sum', 'batch_sum'"):
        reduce(values(), reduction="avg")
    with pytest.raises(ValueError, match="weighting='mean': expected 'weighted_mean', 'mean_of_weighted'"):
        reduce(values(), weighting="mean")
    with pytest.raises(ValueError, match="per_sample=True: expected reduction='mean'"):
        reduce(values(), reduction="sum", per_sample=True)
