"""What a CPU can show of a GPU: a recorder in place of graphs, what the host would wait for, copies of a layout."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from smalti.engine.runtime import Runtime

T = TypeVar("T")
aten = torch.ops.aten


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors inside dataclasses, mappings and sequences, always in the same order."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from tensors_of(getattr(value, field.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from tensors_of(item)


class StandIn:
    """Records as CUDA does, on a CPU: recording executes nothing, a replay writes into the same tensors each time.

    Args:
        modules: whose parameters and buffers the work reads.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules

    def _state(self) -> list[Tensor]:
        return [t for part in self.modules for t in chain(part.parameters(), part.buffers())]

    def warm_up(self, run: Callable[[], T]) -> T:
        return run()

    def record(self, run: Callable[[], T]) -> tuple[Callable[[], None], T]:
        before = [tensor.detach().clone() for tensor in self._state()]
        found = run()
        shared = {tensor.untyped_storage().data_ptr() for tensor in self._state()}
        with torch.no_grad():
            for tensor, copy in zip(self._state(), before, strict=True):
                tensor.copy_(copy)
            for tensor in tensors_of(found):
                if tensor.is_floating_point() and tensor.untyped_storage().data_ptr() not in shared:
                    tensor.detach().fill_(torch.nan)  # nobody may read it before the replay

        def replay() -> None:
            again = run()
            with torch.no_grad():
                for tensor, value in zip(tensors_of(found), tensors_of(again), strict=True):
                    tensor.detach().copy_(value)

        return replay, found


class Waits(TorchDispatchMode):
    """Operations whose result the host must know: on a GPU it waits for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kind = func._overloadpacket
        masks = args[1] if kind in {aten.index, aten.index_put_, aten.index_put} else ()
        by_mask = any(isinstance(mask, Tensor) and mask.dtype == torch.bool for mask in masks or ())
        sized = {aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim}
        if kind in sized or by_mask:
            self.found[str(kind)] += 1
        return func(*args, **(kwargs or {}))


class LayoutCopies(TorchDispatchMode):
    """Copies of images from one memory format to the other: their shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._overloadpacket in {aten.clone, aten._to_copy, aten.copy_, aten.contiguous}:
            before = args[1] if func._overloadpacket is aten.copy_ else args[0]
            if _format(found) and _format(before) and _format(found) != _format(before):
                self.found[tuple(found.shape)] += 1
        return found


def _format(image: Any) -> str:
    """Of a tensor (B, C, H, W) with several channels and pixels; empty for anything else."""
    if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] < 2 or image.shape[2] * image.shape[3] < 2:
        return ""
    if image.is_contiguous():
        return "contiguous"
    return "channels_last" if image.is_contiguous(memory_format=torch.channels_last) else ""


@contextmanager
def reads_cost() -> Iterator[None]:
    """Within, a run on a CPU behaves as if reading a value had to wait for a device."""
    before = Runtime.reads_are_free
    Runtime.reads_are_free = property(lambda self: False)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Runtime.reads_are_free = before  # type: ignore[method-assign]
