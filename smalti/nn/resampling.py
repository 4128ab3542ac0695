"""Small separable filters: what keeps resampling by two from aliasing (Zhang, arXiv:1904.11486)."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.memory_format import format_of

STYLEGAN2 = (1.0, 3.0, 3.0, 1.0)


class Blur(nn.Module):
    """A separable filter of sum 1, each channel by itself: (B, C, H, W) -> (B, C, h, w).

    Args:
        taps: of the filter, normalised here.
        padding: pixels before and after each axis.
        border: ``zeros``, or ``reflect``.
        gain: of the result.

    Example:
        >>> Blur([1, 2, 1], padding=(1, 1), border="reflect")(torch.ones(1, 1, 3, 3)).unique()
        tensor([1.])
    """

    taps: Tensor

    def __init__(
        self,
        taps: Sequence[float] = STYLEGAN2,
        *,
        padding: tuple[int, int] = (0, 0),
        border: Literal["zeros", "reflect"] = "zeros",
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        values = torch.tensor(list(taps), dtype=torch.float32)
        self.register_buffer("taps", values / values.sum() * gain**0.5, persistent=False)
        self.padding = (*padding, *padding)
        self.mode = "constant" if border == "zeros" else "reflect"

    def forward(self, x: Tensor) -> Tensor:
        """The filtered images, of ``x`` with shape (B, C, H, W)."""
        channels, count = x.shape[1], len(self.taps)
        x = F.pad(x, self.padding, mode=self.mode)
        taps = self.taps.to(x.dtype)
        x = F.conv2d(x, taps.view(1, 1, count, 1).expand(channels, -1, -1, -1), groups=channels)
        return F.conv2d(x, taps.view(1, 1, 1, count).expand(channels, -1, -1, -1), groups=channels)


class Upsample(nn.Module):
    """Twice the size, zeros between the pixels and a filter over them: (B, C, H, W) -> (B, C, 2 H, 2 W)."""

    def __init__(self, taps: Sequence[float] = STYLEGAN2) -> None:
        super().__init__()
        self.blur = Blur(taps, padding=(2, 1), gain=4.0)

    def forward(self, x: Tensor) -> Tensor:
        """With shape (B, C, 2 H, 2 W), of ``x`` with shape (B, C, H, W)."""
        batch, channels, height, width = x.shape
        if format_of(x) is torch.channels_last:
            rows = F.pad(x.permute(0, 2, 3, 1)[:, :, None, :, None], (0, 0, 0, 1, 0, 0, 0, 1))
            spread = rows.reshape(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)
        else:
            spread = x.new_zeros(batch, channels, height, 2, width, 2)
            spread[:, :, :, 0, :, 0] = x
            spread = spread.reshape(batch, channels, 2 * height, 2 * width)
        filtered: Tensor = self.blur(spread)
        return filtered
