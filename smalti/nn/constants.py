"""Tensors of a few fixed numbers, copied to a device once: made anew in a step, each would stop the host for a copy."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Nested, as deep as the tensor has dimensions.
Numbers = Sequence[float] | Sequence[Sequence[float]]

_made: dict[tuple[object, ...], Tensor] = {}


def constant(values: Numbers, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor of ``values`` with their shape, the same one for equal arguments: never to be changed in place.

    Args:
        values: numbers, or rows of numbers.
        dtype: of the tensor.
        device: of the tensor.

    Example:
        >>> constant([1, 2], torch.float32, torch.device("cpu")) is constant((1, 2), torch.float32, torch.device("cpu"))
        True
    """
    if torch.compiler.is_compiling():  # a constant of the program
        return torch.tensor(values, dtype=dtype, device=device)
    key = (_fixed(values), dtype, device)
    if key not in _made:
        with torch.inference_mode(False):  # or training could not save it
            made = torch.tensor(values, dtype=dtype, device=device)
        if type(made) is not Tensor:  # a tracer's own
            return made
        _made[key] = made
    return _made[key]


def _fixed(values: Numbers) -> tuple[object, ...]:
    return tuple(tuple(value) if isinstance(value, Sequence) else value for value in values)
