"""Transformer blocks over the positions of a grid, with position tables that fit any grid."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.exporting import is_exporting


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v with several heads of width d (Vaswani et al., arXiv:1706.03762).

    Args:
        width: of input and output.
        heads: number of heads; divides ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width < 1 or heads < 1 or width % heads:
            raise ValueError(f"heads={heads}: expected a divisor of the width {width}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Maps x (B, N, width) to the same shape, or to the first ``queries`` tokens of it, which see all N."""
        if queries is None:
            q, k, v = self.qkv(x).chunk(3, dim=-1)
        else:
            width = x.shape[-1]
            q = F.linear(x[:, :queries], self.qkv.weight[:width], self.qkv.bias[:width])
            k, v = F.linear(x, self.qkv.weight[width:], self.qkv.bias[width:]).chunk(2, dim=-1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (q, k, v))
        attended = F.scaled_dot_product_attention(q, k, v)
        output: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return output


class TransformerBlock(nn.Module):
    """x += attention(norm(x)); x += mlp(norm(x)), normalised in front (Xiong et al., arXiv:2002.04745), exact GELU.

    Args:
        width: of input and output.
        heads: attention heads; divides ``width``.
        mlp_ratio: width of the MLP's hidden layer in units of ``width``.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        hidden = round(width * mlp_ratio)
        self.norm1 = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor, queries: int | None = None) -> Tensor:
        """Maps x (B, N, width) to the same shape, or to its first ``queries`` tokens, which see all N.

        Example:
            >>> block, x = TransformerBlock(8, 2), torch.randn(1, 5, 8)
            >>> torch.allclose(block(x, queries=1), block(x)[:, :1], atol=1e-6)
            True
        """
        x = x[:, :queries] + self.attention(self.norm1(x), queries)
        output: Tensor = x + self.mlp(self.norm2(x))
        return output


class PositionTable(nn.Module):
    """A learned vector for each cell of a grid, interpolated for other grids (Dosovitskiy et al., arXiv:2010.11929).

    Args:
        grid: side of the square grid it was made for.
        width: of a vector; they start as N(0, 1 / width).
    """

    def __init__(self, grid: int, width: int) -> None:
        super().__init__()
        if grid < 1:
            raise ValueError(f"grid={grid}: expected the side of the latent grid, a positive whole number")
        self.grid = grid
        self.table = nn.Parameter(torch.randn(grid * grid, width) * width**-0.5)

    def forward(self, height: int, width: int) -> Tensor:
        """The vectors of a grid with shape (height * width, channels), row by row; bicubic unless it is the own grid.

        Example:
            >>> positions = PositionTable(4, 8)
            >>> positions(4, 4) is positions.table, positions(2, 6).shape
            (True, torch.Size([12, 8]))
        """
        if not is_exporting() and (height, width) == (self.grid, self.grid):
            return self.table
        square = self.table.T.reshape(1, -1, self.grid, self.grid)
        wide = square if square.dtype == torch.float64 else square.float()
        fitted = F.interpolate(wide, size=(height, width), mode="bicubic", align_corners=False)
        return fitted.to(self.table.dtype).flatten(2)[0].T
