"""The memory format that images are in: what makes a tensor anew hands on the one it was given.

A convolution answers in the format of its input, and each change of format is a copy. Only formats are chosen here;
values are the same in both.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def format_of(x: Tensor) -> torch.memory_format:
    """``torch.channels_last`` if x with shape (B, C, H, W) is so and not also contiguous, else contiguous.

    Example:
        >>> format_of(torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last)), format_of(torch.zeros(1, 2, 3, 3))
        (torch.channels_last, torch.contiguous_format)
    """
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def like(x: Tensor, other: Tensor) -> Tensor:
    """x in the memory format of another tensor, both with four dimensions; x itself if it is so already.

    Example:
        >>> like(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last)).stride()
        (18, 1, 6, 2)
    """
    return x.contiguous(memory_format=format_of(other))


def stack_channels(planes: Sequence[Tensor], other: Tensor) -> Tensor:
    """Planes (B, h, w) as channels (B, C, h, w), in the memory format of another tensor.

    Example:
        >>> stack_channels([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)], torch.zeros(1, 2, 2, 2))[0, :, 0, 0]
        tensor([0., 1.])
    """
    if format_of(other) is torch.channels_last:
        return torch.stack(list(planes), dim=-1).permute(0, 3, 1, 2)
    return torch.stack(list(planes), dim=1)


def with_like_gradient(x: Tensor) -> Tensor:
    """x with shape (B, C, H, W), whose gradient comes in its memory format too if that is channels_last.

    The gradient of a mean is contiguous, whatever the mean is of, and would turn the whole way back from there.

    Example:
        >>> x = torch.zeros(1, 2, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
        >>> y = with_like_gradient(x * 1)
        >>> torch.autograd.grad((y * y).mean(), x)[0].stride()
        (8, 1, 4, 2)
    """
    if not (torch.is_grad_enabled() and x.requires_grad and format_of(x) is torch.channels_last):
        return x
    found: Tensor = _LikeGradient.apply(x)  # type: ignore[no-untyped-call]
    return found


class _LikeGradient(torch.autograd.Function):
    """x -> x; its gradient -> the same in channels_last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad.contiguous(memory_format=torch.channels_last)
