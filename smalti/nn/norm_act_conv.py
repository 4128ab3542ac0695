"""GroupNorm, SiLU and convolution as one step that keeps only its input for the backward pass.

The plain chain keeps three tensors of an activation's size: the input, the normalised input and the input of the
convolution. The last two are cheap to make again and no convolution is run twice, so a residual block keeps two
activations where it kept six. Gradients are those of the plain chain bit for bit, as the same operations make them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from smalti.nn.group_norm import group_norm, norm_silu, statistics


def norm_act_conv(x: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d) -> Tensor:
    """conv(silu(norm(x))) of x with shape (B, C, H, W), keeping only x.

    Its gradient cannot be differentiated again. Forward hooks of ``norm`` and ``conv`` do not run.

    Example:
        >>> x, norm, conv = torch.randn(1, 4, 3, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 3, padding=1)
        >>> torch.equal(norm_act_conv(x, norm, conv), conv(F.silu(norm(x))))
        True
    """
    output: Tensor
    if torch.is_grad_enabled():
        options = (norm.num_groups, norm.eps, conv.stride, conv.padding, conv.dilation, conv.groups)
        inputs = (x, norm.weight, norm.bias, conv.weight, conv.bias, options)
        output = _NormActConv.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        output = conv(norm_silu(x, norm))
    return output


class _NormActConv(torch.autograd.Function):
    """(x, weight and bias of the norm, weight and bias of the convolution, options) -> output (B, C', H', W')."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
    ) -> Tensor:
        groups, eps, stride, padding, dilation, conv_groups = options
        stats = statistics(x, groups, eps)
        h = group_norm(x, groups, scale, shift, eps, silu=True, stats=stats)
        ctx.save_for_backward(x, scale, shift, weight, stats)
        ctx.bias = None if bias is None else bias.shape
        ctx.options = options
        device = x.device.type
        ctx.autocast = {
            "device_type": device,
            "enabled": torch.is_autocast_enabled(device),
            "dtype": torch.get_autocast_dtype(device),
        }
        return F.conv2d(h, weight, bias, stride, padding, dilation, conv_groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, scale, shift, weight, stats = ctx.saved_tensors
        groups, eps, stride, padding, dilation, conv_groups = ctx.options
        wanted = ctx.needs_input_grad
        leaves = [value.detach().requires_grad_(want) for value, want in zip((x, scale, shift), wanted, strict=False)]
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            h = group_norm(leaves[0], groups, leaves[1], leaves[2], eps, silu=True, stats=stats)
        grad_h, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad,
            h.detach().to(grad.dtype),
            weight.to(grad.dtype),
            ctx.bias,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            conv_groups,
            [any(wanted[:3]), wanted[3], wanted[4]],
        )
        inner: dict[int, Tensor] = {}
        if any(wanted[:3]):
            asked = [leaf for leaf in leaves if leaf.requires_grad]
            inner = dict(zip(map(id, asked), torch.autograd.grad(h, asked, grad_h.to(h.dtype)), strict=True))
        return (
            *(inner.get(id(leaf)) for leaf in leaves),
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
        )
