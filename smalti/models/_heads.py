"""Feature heads: what a codebook's latent says of the image as a whole, to be compared with a frozen teacher."""

from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.nn.sizes import Layers
from smalti.nn.transformer import PositionTable, TransformerBlock

Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """Options of a feature head; the defaults are those of FQGAN for a factor of 16 at 256 pixels (arXiv:2411.16681).

    Args:
        codebook: whose latent it reads.
        width: of the transformer and of the prediction: the teacher's.
        grid: side of the latent grid that the position table is made for; other grids interpolate it.
        layers: transformer blocks.
        heads: attention heads; divides ``width``.
        mlp_ratio: width of the blocks' hidden layer in units of ``width``.
    """

    codebook: str
    width: Positive
    grid: Positive = 16
    layers: Layers = 3
    heads: Positive = 8
    mlp_ratio: Annotated[float, Field(gt=0.0)] = 4.0


class FeatureHead(nn.Module):
    """A two-layer perceptron on each position, a class token, transformer blocks (Bai et al., arXiv:2411.16681).

    ``forward`` computes the class token alone: the last block asks one query, and no other token is finished.

    Args:
        channels: width d of the codebook's latent.
        options: of the head.

    Example:
        >>> head = FeatureHead(4, HeadOptions(codebook="semantic", width=16, grid=2, layers=2, heads=2))
        >>> latent = torch.randn(1, 4, 2, 3)
        >>> head(latent).shape, head.tokens(latent).shape
        (torch.Size([1, 16]), torch.Size([1, 7, 16]))
    """

    def __init__(self, channels: int, options: HeadOptions) -> None:
        super().__init__()
        width = options.width
        self.entrance = nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
        self.class_token = nn.Parameter(torch.randn(1, width) * width**-0.5)
        self.class_position = nn.Parameter(torch.randn(1, width) * width**-0.5)
        self.positions = PositionTable(options.grid, width)
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, options.heads, options.mlp_ratio) for _ in range(options.layers)
        )
        self.norm_out = nn.LayerNorm(width)

    def forward(self, latent: Tensor) -> Tensor:
        """The class token with shape (B, width) of a latent (B, channels, h, w)."""
        return self._tokens(latent, 1)[:, 0]

    def tokens(self, latent: Tensor) -> Tensor:
        """All tokens, the class token first, with shape (B, 1 + h w, width)."""
        return self._tokens(latent, None)

    def _tokens(self, latent: Tensor, last: int | None) -> Tensor:
        height, width = latent.shape[-2:]
        x = self.entrance(latent.to(self.class_token.dtype).flatten(2).transpose(1, 2))
        x = x + self.positions(height, width)
        first = (self.class_token + self.class_position).to(x.dtype).expand(x.shape[0], 1, -1)
        x = self.norm_in(torch.cat([first, x], dim=1))
        for block in self.blocks[:-1]:
            x = block(x)
        x = self.blocks[-1](x, last)
        output: Tensor = self.norm_out(x)
        return output
