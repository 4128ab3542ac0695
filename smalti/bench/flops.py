"""Floating-point operations of whatever runs inside, counted by operation: products and convolutions, both ways.

A multiplication and an addition count as two. What is not a product (norms, activations, copies, optimizers) counts
nothing, nor do kernels of Triton, which torch does not show.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts while it is entered, forward and backward; ``total`` is the number so far.

    Example:
        >>> with Operations() as operations:
        ...     _ = torch.ones(2, 3) @ torch.ones(3, 5)
        >>> operations.total
        60
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs the operation and adds what it took."""
        found = func(*args, **(kwargs or {}))
        count = COUNTS.get(func._overloadpacket)
        if count is not None:
            self.total += count(args, found)
        return found


def _convolution(args: tuple[Any, ...], found: Any) -> int:
    """2 multiplications with one filter for each element of the output, or of the input if transposed."""
    image, weight = args[:2]
    transposed = len(args) > 6 and args[6] is True
    return int(2 * (image if transposed else found).numel() * math.prod(weight.shape[1:]))


def _transposed(args: tuple[Any, ...], found: Any) -> int:
    """The same of a transposed one that was not taken apart, as without autograd."""
    return int(2 * args[0].numel() * math.prod(args[1].shape[1:]))


def _convolution_backward(args: tuple[Any, ...], found: Any) -> int:
    """Once more the forward pass for the gradient of the image, and once for that of the weight."""
    grad, image, weight, transposed, mask = args[0], args[1], args[2], args[7], args[10]
    one = 2 * (image if transposed else grad).numel() * math.prod(weight.shape[1:])
    return int(one * (bool(mask[0]) + bool(mask[1])))


def _product(first: int) -> Callable[[tuple[Any, ...], Any], int]:
    """Of the matrices at ``first`` and behind it: 2 times inner width for each element of the output."""
    return lambda args, found: 2 * int(found.numel()) * int(args[first].shape[-1])


def _attention(args: tuple[Any, ...], found: Any) -> int:
    """Two products of queries (B, H, N, d) with keys (B, H, M, d), once with values."""
    queries, keys, values = args[:3]
    return int(2 * math.prod(queries.shape[:-1]) * keys.shape[-2] * (queries.shape[-1] + values.shape[-1]))


def _attention_backward(args: tuple[Any, ...], found: Any) -> int:
    """Five products where forward there are two: the weights are made again."""
    return 5 * _attention(args[1:], found) // 2


COUNTS: dict[Any, Callable[[tuple[Any, ...], Any], int]] = {
    aten.convolution: _convolution,
    aten._convolution: _convolution,
    aten.conv2d: _convolution,
    aten.conv_transpose2d: _transposed,
    aten.convolution_backward: _convolution_backward,
    aten.mm: _product(0),
    aten.bmm: _product(0),
    aten.addmm: _product(1),
    aten.baddbmm: _product(1),
    aten.linear: _product(0),
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention: _attention,
    aten._scaled_dot_product_efficient_attention: _attention,
    aten._scaled_dot_product_cudnn_attention: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
}
