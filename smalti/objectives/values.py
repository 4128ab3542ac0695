"""Nested values - tensors in dataclasses, mappings and sequences - without their graph or in full precision."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Applies ``function`` to every tensor (of any shape) of a nested value; dataclasses and mappings keep their form.

    >>> map_tensors(torch.neg, {"a": torch.tensor(1), "b": (torch.tensor(2), "text")})
    {'a': tensor(-1), 'b': (tensor(-2), 'text')}
    """
    if isinstance(value, Tensor):
        return function(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        items = {f.name: map_tensors(function, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **items)
    if isinstance(value, Mapping):
        return {key: map_tensors(function, item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(map_tensors(function, item) for item in value)
    return value


def detached(value: Any) -> Any:
    """The same value without any graph."""
    return map_tensors(Tensor.detach, value)


def full_precision(value: Any) -> Any:
    """The same value with half-precision tensors as float32, graph kept; float64 and integers stay."""
    return map_tensors(_widen, value)


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
