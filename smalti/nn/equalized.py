"""Layers whose weights all start as N(0, 1): the scale that others put into the start stands in the forward pass.

So Adam, whose steps have one size for all weights, treats all layers alike (Karras et al., arXiv:1710.10196).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SQRT2 = math.sqrt(2.0)


def leaky_relu(x: Tensor) -> Tensor:
    """LeakyReLU 0.2 times sqrt(2), which keeps the variance of its input.

    >>> leaky_relu(torch.tensor([1.0, -1.0]))
    tensor([ 1.4142, -0.2828])
    """
    return F.leaky_relu(x, 0.2) * SQRT2


class EqualizedLinear(nn.Module):
    """y = x W^T g / sqrt(in) + b g with W of N(0, 1 / g^2), g the ``rate``: (B, in_features) -> (B, out_features).

    Args:
        in_features: width of the input.
        out_features: width of the output.
        rate: learning rate of this layer relative to the others.
        bias: start of the bias.
        activate: put ``leaky_relu`` behind it.
    """

    def __init__(
        self, in_features: int, out_features: int, *, rate: float = 1.0, bias: float = 0.0, activate: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features).div_(rate))
        self.bias = nn.Parameter(torch.full((out_features,), bias / rate))
        self.gain = rate / math.sqrt(in_features)
        self.rate = rate
        self.activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """With shape (B, out_features), of ``x`` with shape (B, in_features)."""
        y = F.linear(x, self.weight * self.gain, self.bias * self.rate)
        return leaky_relu(y) if self.activate else y


class EqualizedConv(nn.Module):
    """Convolution with weights of N(0, 1) times 1 / sqrt(in k^2): (B, in_channels, H, W) -> (B, out_channels, h, w).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel: its side.
        stride: of the kernel.
        padding: zeros around the input.
        bias: whether it has one.
        activate: put ``leaky_relu`` behind it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        activate: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.gain = 1.0 / math.sqrt(in_channels * kernel**2)
        self.stride, self.padding, self.activate = stride, padding, activate

    def forward(self, x: Tensor) -> Tensor:
        """With shape (B, out_channels, h, w), of ``x`` with shape (B, in_channels, H, W)."""
        y = F.conv2d(x, self.weight * self.gain, self.bias, stride=self.stride, padding=self.padding)
        return leaky_relu(y) if self.activate else y
