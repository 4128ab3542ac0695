"""Linear layers applied again and again to a few rows on a CPU: their weights in oneDNN's own layout, made once.

A product with eight rows takes as long as reading its weights; ``torch.nn.functional.linear`` arranges them anew at
each call, and takes twice as long. torch's compiler packs weights in the same way, by the same operators.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LEAST = 2**17  # weights of a layer


@contextmanager
def packed_linears(network: nn.Module, rows: int) -> Iterator[None]:
    """Inside, the linear layers of a network use a packed copy of their weights, where that is possible.

    It is for layers of 2^17 weights and more, since each call takes some microseconds longer; for float32 and bfloat16
    on a CPU without autocast, under ``inference_mode`` or ``no_grad``; elsewhere nothing changes. Weights that change
    inside are not seen. The copy takes as much memory as the weights.

    Args:
        network: whose layers are packed.
        rows: that they will mostly be applied to; any number works.

    Example:
        >>> layer, x = nn.Linear(512, 256), torch.randn(2, 512)
        >>> with torch.no_grad(), packed_linears(layer, rows=2):
        ...     packed = layer(x)
        >>> torch.allclose(packed, layer(x), atol=1e-5)
        True
    """
    layers = [module for module in network.modules() if type(module) is nn.Linear and _may_be_packed(module.weight)]
    try:
        for layer in layers:
            layer.forward = _packed(layer, rows)  # type: ignore[method-assign,assignment]
        yield
    finally:
        for layer in layers:
            vars(layer).pop("forward", None)


def _may_be_packed(weight: Tensor) -> bool:
    if (
        weight.numel() < LEAST
        or weight.device.type != "cpu"
        or torch.is_autocast_enabled("cpu")
        or torch.is_grad_enabled()
    ):
        return False
    if not torch._C._has_mkldnn or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    return weight.dtype == torch.float32 or (
        weight.dtype == torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def _packed(layer: nn.Linear, rows: int) -> Callable[[Tensor], Tensor]:
    """x W^T + b with a packed W, in place of a layer's ``forward``."""
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)

    def product(x: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, layer.bias, "none", [], "")
        return made

    return product
