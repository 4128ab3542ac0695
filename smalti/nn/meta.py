"""Networks without their memory: shapes and names only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FILLINGS = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_"}


@contextmanager
def on_meta_device() -> Iterator[None]:
    """Within, modules are built on the meta device, where tensors have shapes and no memory.

    >>> with on_meta_device():
    ...     layer = torch.nn.Linear(10_000, 10_000)
    >>> layer.weight.is_meta
    True
    """
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    """Random fillings do nothing: the meta device has nothing to fill, and torch would import its compiler for it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Passes everything but ``normal_``, ``uniform_`` and their like on."""
        if getattr(func, "__name__", "") in _FILLINGS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))
