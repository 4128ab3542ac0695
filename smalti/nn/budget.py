"""How much a network may be: counted while it is built on the meta device, where nothing has been allocated yet."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as hooks

from smalti.registry import UserError

MOST_BYTES = 2**38  # 256 GiB: each process holds the whole network, and no device has as much
MOST_PARTS = 10_000  # layers and tensors: a network of them takes seconds to build


class TooLargeError(UserError):
    """A network that could not be allocated, with the figure."""


@contextmanager
def within_budget(most_bytes: int = MOST_BYTES, most_parts: int = MOST_PARTS) -> Iterator[None]:
    """Within, networks that are built may together hold no more than this.

    >>> with within_budget(most_bytes=100):
    ...     layer = nn.Linear(4, 4)  # 80 bytes
    >>> try:
    ...     with within_budget(most_bytes=100):
    ...         layer = nn.Linear(4, 8)
    ... except TooLargeError as error:
    ...     print(error)
    weight would make it 128 B of weights and more: expected at most 100 B

    Args:
        most_bytes: of parameters and buffers.
        most_parts: layers, parameters and buffers.

    Raises:
        TooLargeError: as soon as they hold more.
    """
    held = parts = 0

    def count(_: nn.Module, name: str, part: Any) -> None:
        nonlocal held, parts
        parts += 1
        held += part.numel() * part.element_size() if isinstance(part, Tensor) else 0
        if held > most_bytes:
            more = f"{name} would make it {readable(held)} of weights and more"
            raise TooLargeError(f"{more}: expected at most {readable(most_bytes)}")
        if parts > most_parts:
            raise TooLargeError(f"more than {most_parts:,} layers and tensors")

    handles = [
        hooks.register_module_parameter_registration_hook(count),
        hooks.register_module_buffer_registration_hook(count),
        hooks.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def readable(size: int) -> str:
    """A number of bytes for readers.

    >>> readable(100), readable(3 * 2**30), readable(2**80)
    ('100 B', '3.0 GiB', '1048576.0 EiB')
    """
    if size < 1024:
        return f"{size} B"
    units = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
    power = min(len(units), (size.bit_length() - 1) // 10)
    return f"{size / 1024**power:.1f} {units[power - 1]}"
