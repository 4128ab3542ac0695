"""Tensors of fixed numbers: made once for a device and a type, and no tracer's or inference's own."""

import pytest
import torch

from smalti.extractors._images import seen
from smalti.extractors._preprocessing import STATISTICS, prepare
from smalti.nn.constants import constant
from tests.contracts.fresh import Fresh

CPU = torch.device("cpu")


def test_equal_arguments_are_one_tensor():
    one = constant([[0.5, 1.0], [2.0, 3.0]], torch.float32, CPU)
    assert torch.equal(one, torch.tensor([[0.5, 1.0], [2.0, 3.0]]))
    assert constant(((0.5, 1.0), (2.0, 3.0)), torch.float32, CPU) is one
    assert constant(((0.5, 1.0), (2.0, 3.0)), torch.float64, CPU).dtype == torch.float64
    assert constant((1, 0), torch.bool, CPU).tolist() == [True, False]


def test_made_in_inference_mode_it_still_trains():
    with torch.inference_mode():
        constant((7.25,), torch.float32, CPU)
    x = torch.ones(1, requires_grad=True)
    (x * constant((7.25,), torch.float32, CPU)).backward()
    assert x.grad == 7.25


def test_a_tracer_keeps_its_own():
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        constant((8.25,), torch.float32, CPU)
    assert type(constant((8.25,), torch.float32, CPU)) is torch.Tensor


@pytest.mark.parametrize("normalization", list(STATISTICS))
def test_preprocessing_copies_no_number_at_a_second_step(normalization):
    images = torch.rand(1, 3, 12, 12)
    first = prepare(images, 6, "nearest", normalization)
    with Fresh() as fresh:
        assert torch.equal(prepare(images, 6, "nearest", normalization), first)
        assert fresh.count == 0
        torch.tensor([1.0])
    assert fresh.count == 1


def test_chosen_channels_are_what_indexing_gives():
    images = torch.randn(2, 4, 3, 3)
    assert torch.equal(seen(images, (2, 0, 2)), images[:, [2, 0, 2]])
    with Fresh() as fresh:
        seen(images, (2, 0, 2))
        assert fresh.count == 0
        images[:, [2, 0, 2]]
    assert fresh.count == 1
