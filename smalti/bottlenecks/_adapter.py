"""The way from an encoder's middle to one codebook: a transformer on the latent grid, norm, activation, convolution."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from smalti.nn.blocks import NormKind, norm
from smalti.nn.group_norm import norm_silu
from smalti.nn.memory_format import like
from smalti.nn.sizes import Layers
from smalti.nn.transformer import PositionTable, TransformerBlock

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Options of an adapter; the defaults are those of FQGAN for a factor of 16 at 256 pixels (arXiv:2411.16681).

    Args:
        out_channels: width behind the 3x3 convolution.
        grid: side of the latent grid that the position table is made for; other grids interpolate it.
        layers: transformer blocks.
        heads: attention heads; divides the transformer's width.
        width: of the transformer; None: that of the features, with no projection in front.
        mlp_ratio: width of the blocks' hidden layer in units of the transformer's width.
        norm: ``group``, ``batch`` or ``none`` in front of the activation.
        groups: number of groups; divides the transformer's width.
    """

    out_channels: Positive = 256
    grid: Positive = 16
    layers: Layers = 6
    heads: Positive = 8
    width: Positive | None = None
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0
    norm: NormKind = "group"
    groups: Positive = 32


class Adapter(nn.Module):
    """Transformer -> norm -> silu -> 3x3 convolution: one branch of a factorized tokenizer (arXiv:2411.16681).

    Args:
        in_channels: width of the features.
        options: of the branch.
    """

    def __init__(self, in_channels: int, options: AdapterOptions) -> None:
        super().__init__()
        width = options.width or in_channels
        self.entrance = nn.Identity() if width == in_channels else nn.Linear(in_channels, width)
        self.positions = PositionTable(options.grid, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, options.heads, options.mlp_ratio) for _ in range(options.layers)
        )
        self.norm_out = nn.LayerNorm(width)
        self.norm = norm(options.norm, width, options.groups)
        self.conv = nn.Conv2d(width, options.out_channels, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w), of any h and w, to (B, out_channels, h, w)."""
        height, width = features.shape[-2:]
        x = self.entrance(features.to(self.conv.weight.dtype).flatten(2).transpose(1, 2))
        x = self.norm_in(x + self.positions(height, width))
        for block in self.blocks:
            x = block(x)
        x = self.norm_out(x).transpose(1, 2).unflatten(2, (height, width))
        x = like(x, features)
        output: Tensor = self.conv(norm_silu(x, self.norm))
        return output
