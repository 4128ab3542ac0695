"""Networks without their memory: shapes and names only."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

# What constructors do with numbers. On the meta device torch computes it in Python, and imports its compiler for that.
_SAME = {"normal_", "uniform_", "trunc_normal_", "kaiming_uniform_", "xavier_uniform_", "normalize"}
_ARITHMETIC = {"add", "sub", "mul", "div", "truediv", "true_divide", "pow", "radd", "rsub", "rmul", "rtruediv", "rdiv"}


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


def is_of_meta(error: BaseException | None) -> bool:
    """Whether a constructor failed because tensors had no values: a class from elsewhere may look at them."""
    while error is not None:
        if isinstance(error, (RuntimeError, NotImplementedError)) and "meta" in str(error):
            return True
        error = error.__cause__
    return False


class _Unfilled(TorchFunctionMode):
    """Fillings do nothing, and arithmetic yields a shape: the meta device has nothing to fill or to compute."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Passes everything but random fillings, normalising and arithmetic on."""
        name = getattr(func, "__name__", "")
        if name in _SAME and _is_meta((*args, *(kwargs or {}).values())):
            return args[0] if args else next(iter(kwargs.values()))
        name = name.strip("_")
        if name in _ARITHMETIC and len(args) == 2 and not kwargs and _is_meta(args):
            return _shape_of(*args, divides=name.endswith(("div", "divide")))
        if name in {"mv", "vdot"} and _is_meta(args):  # of a spectral norm
            return args[0].new_empty(args[0].shape[:-1])
        return func(*args, **(kwargs or {}))


def _is_meta(values: tuple[Any, ...]) -> bool:
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    return any(tensor.is_meta for tensor in tensors)


def _shape_of(first: Any, second: Any, *, divides: bool) -> torch.Tensor:
    """A meta tensor with the shape and dtype that arithmetic of the two would have."""
    shapes = [value.shape for value in (first, second) if isinstance(value, torch.Tensor)]
    shape = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    dtype = torch.result_type(first, second)
    if divides and not (dtype.is_floating_point or dtype.is_complex):
        dtype = torch.get_default_dtype()
    return torch.empty(shape, dtype=dtype, device="meta")
