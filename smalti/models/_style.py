"""StyleGAN2's building blocks: mapping network, modulated convolution, noise (Karras et al., arXiv:1912.04958)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.equalized import EqualizedLinear, leaky_relu
from smalti.nn.resampling import Blur


class Mapping(nn.Module):
    """Noise z (B, latent_size), and a class, to w (B, width).

    z and the class embedding are scaled to unit mean square; the layers learn at a hundredth of the rate.

    Args:
        latent_size: of the noise.
        width: of w.
        layers: number of linear layers.
        num_classes: number of classes, 0: none.
    """

    def __init__(self, latent_size: int, width: int, layers: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classes = EqualizedLinear(num_classes, width) if num_classes else None
        widths = [latent_size + (width if num_classes else 0), *[width] * layers]
        self.layers = nn.Sequential(
            *(EqualizedLinear(widths[i], widths[i + 1], rate=0.01, activate=True) for i in range(layers))
        )

    def forward(self, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """w with shape (B, width), of noise (B, latent_size) and classes (B,)."""
        x = unit_mean_square(noise)
        if self.classes is not None and labels is not None:
            embedded = self.classes(F.one_hot(labels, self.num_classes).to(x.dtype))
            x = torch.cat([x, unit_mean_square(embedded)], dim=1)
        w: Tensor = self.layers(x)
        return w


def unit_mean_square(x: Tensor) -> Tensor:
    """x / sqrt(mean x^2) of each row of (B, n).

    >>> unit_mean_square(torch.tensor([[3.0, 3.0]])).round(decimals=4)
    tensor([[1., 1.]])
    """
    return x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by a style, its outputs back to unit variance if ``demodulate``.

    Maps (B, in_channels, H, W) and styles from w (B, width) to (B, out_channels, H, W), or twice the size. Scaling the
    maps before and after one convolution equals convolving each image with its own kernel.

    Args:
        in_channels: of the maps.
        out_channels: of the result.
        kernel: side of the kernel.
        width: of w.
        demodulate: divide by the expected deviation.
        upsample: double the size, by a transposed convolution and a filter.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, width: int, *, demodulate: bool, upsample: bool = False
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.gain = 1.0 / math.sqrt(in_channels * kernel**2)
        self.style = EqualizedLinear(width, in_channels, bias=1.0)
        self.demodulate = demodulate
        self.blur = Blur(padding=(1, 1), gain=4.0) if upsample else None

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """The convolved maps, of ``x`` with shape (B, in_channels, H, W) and ``w`` with shape (B, width)."""
        style = self.style(w)
        weight = self.weight * self.gain
        x = x * style[:, :, None, None].to(x.dtype)
        if self.blur is None:
            y = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        else:
            y = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return y
        energy = style.square() @ weight.square().sum(dim=(2, 3)).t()
        return y * torch.rsqrt(energy + 1e-8)[:, :, None, None].to(y.dtype)


class StyledLayer(nn.Module):
    """Modulated 3 x 3 convolution, noise, bias, LeakyReLU: (B, in_channels, H, W) -> (B, out_channels, H', W').

    In training the noise is drawn anew; in evaluation it is one fixed map, so that images are repeatable.

    Args:
        in_channels: of the maps.
        out_channels: of the result.
        width: of w.
        size: side of the result.
        upsample: double the size.
    """

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, width: int, size: int, upsample: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(in_channels, out_channels, 3, width, demodulate=True, upsample=upsample)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """The result for ``w`` with shape (B, width)."""
        y = self.conv(x, w)
        noise = torch.randn_like(y[:, :1]) if self.training else self.noise.to(y.dtype)
        return leaky_relu(y + self.strength * noise + self.bias[:, None, None])
