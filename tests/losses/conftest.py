"""What tests of losses against recorded numbers share."""

import pytest
import torch


@pytest.fixture
def double():
    """Tensors in double precision, in which ours is then computed, whatever it makes itself.

    What is left is the rounding of the recorded numbers, the same on every machine.
    """
    torch.set_default_dtype(torch.float64)
    yield lambda tensors: {name: tensor.double() for name, tensor in tensors.items()}
    torch.set_default_dtype(torch.float32)
