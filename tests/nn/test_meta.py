"""Networks on the meta device have the shapes and types of real ones."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from smalti.nn.meta import on_meta_device


def ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(*shape, dtype=dtype)


ARITHMETIC = {
    "scaled": lambda: ones(2, 3) * 0.5,
    "by a number first": lambda: 2.0 - ones(3),
    "broadcast": lambda: ones(4, 1) + ones(3),
    "whole numbers divided": lambda: ones(2, dtype=torch.int64) / 2,
    "whole numbers multiplied": lambda: ones(2, dtype=torch.int64) * 2,
    "double": lambda: ones(2, dtype=torch.float64) / ones(2),
    "power": lambda: ones(2) ** 2,
    "normalised kernel": lambda: ones(4, 4) / ones(4, 4).sum() * 2.0,
}


@pytest.mark.parametrize("made", ARITHMETIC.values(), ids=ARITHMETIC)
def test_arithmetic_has_the_shape_and_type_that_numbers_would_have(made) -> None:
    real = made()
    with on_meta_device():
        shape = made()
    assert shape.is_meta
    assert shape.shape == real.shape
    assert shape.dtype == real.dtype


def test_a_spectral_norm_needs_no_numbers() -> None:
    with on_meta_device():
        layer = spectral_norm(nn.Conv2d(3, 4, 3))
    real = spectral_norm(nn.Conv2d(3, 4, 3))
    assert {name: value.shape for name, value in layer.state_dict().items()} == {
        name: value.shape for name, value in real.state_dict().items()
    }


def test_numbers_within_stay_numbers() -> None:
    real = torch.full((2,), 3.0, device="cpu")
    with on_meta_device():
        assert (real * 2).tolist() == [6.0, 6.0]
        assert torch.nn.functional.normalize(real, dim=0)[0].item() == pytest.approx(0.5**0.5)
