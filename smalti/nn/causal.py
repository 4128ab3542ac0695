"""Decoder blocks of LLaMA's kind (Touvron et al., arXiv:2302.13971), as LlamaGen and FAR use them for tokens of images.

Each position sees itself and what comes before it: over a whole sequence in training, and one position after another in
sampling, where keys and values of the positions before stay in a cache.
"""

from collections.abc import Iterable
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.precision import at_least_float32
from smalti.nn.rotary import rotate

Rate = Annotated[float, Field(ge=0.0, lt=1.0)]
EPS = 1e-5


class RMSNorm(nn.Module):
    """x / sqrt(mean x^2 + 1e-5) in float32 at least, in the dtype of x, times a weight (arXiv:1910.07467).

    Args:
        width: of the last axis.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., width) to the same shape."""
        scaled = F.rms_norm(at_least_float32(x), x.shape[-1:], eps=EPS)
        return scaled.to(x.dtype) * self.weight


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), without biases (Shazeer, arXiv:2002.05202).

    Args:
        width: of input and output.
        hidden: width between; None: :func:`published_hidden`.
        dropout: of the output, in training.
    """

    def __init__(self, width: int, hidden: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        hidden = hidden or published_hidden(width)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (..., width) to the same shape."""
        made: Tensor = self.down(F.silu(self.gate(x)) * self.up(x))
        return self.dropout(made) if self.training else made  # a call of a module counts when one position is drawn


def published_hidden(width: int) -> int:
    """LLaMA's hidden width: 8/3 of the width, rounded up to a multiple of 256.

    >>> published_hidden(1024), published_hidden(32)
    (2816, 256)
    """
    return -(-int(8 * width / 3) // 256) * 256


class DropPath(nn.Module):
    """In training leaves a branch out for a sample, with probability ``rate``, and scales those that stay.

    Args:
        rate: in [0, 1) (Huang et al., arXiv:1603.09382).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, ...) to the same shape."""
        if not self.training or self.rate == 0.0:
            return x
        stays = 1.0 - self.rate
        return x * (torch.rand(len(x), *(1,) * (x.ndim - 1), device=x.device) < stays).to(x.dtype) / stays


class KeyValues:
    """Keys and values of the positions that were seen, in memory that is allocated once.

    On a CPU they are kept in float32 at least: attention over bfloat16 takes several times as long there.

    Args:
        like: fixes dtype and device.
        batch: sequences.
        heads: of keys and values.
        length: most positions.
        width: of a head.
    """

    def __init__(self, like: Tensor, batch: int, heads: int, length: int, width: int) -> None:
        dtype = at_least_float32(like[:0]).dtype if like.device.type == "cpu" else like.dtype
        self.keys = like.new_empty(batch, heads, length, width, dtype=dtype)
        self.values = torch.empty_like(self.keys)

    def extend(self, start: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes keys and values (B, heads, n, d) at ``start``.

        Returns:
            all keys and values up to there, with shape (B, heads, start + n, d); B may be fewer than it was made for.
        """
        batch, end = len(keys), start + keys.shape[2]
        self.keys[:batch, :, start:end] = keys
        self.values[:batch, :, start:end] = values
        return self.keys[:batch, :, :end], self.values[:batch, :, :end]


class CausalAttention(nn.Module):
    """softmax(q k^T / sqrt(d)) v over what is not later, without biases; queries may share keys (arXiv:2305.13245).

    Args:
        width: of input and output.
        heads: of the queries; divides ``width``.
        kv_heads: of keys and values; divides ``heads``.
        dropout: of the output, in training.

    Raises:
        ValueError: if the numbers do not divide.
    """

    def __init__(self, width: int, heads: int, kv_heads: int | None = None, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads={heads}: expected a divisor of the width {width}")
        if kv_heads is not None and heads % kv_heads:
            raise ValueError(f"kv_heads={kv_heads}: expected a divisor of the heads {heads}")
        self.heads, self.kv_heads = heads, kv_heads or heads
        self.head_width = width // heads
        self.qkv = nn.Linear(width, (heads + 2 * self.kv_heads) * self.head_width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(dropout)

    def cache(self, batch: int, length: int) -> KeyValues:
        """Memory for :meth:`forward`, for ``batch`` sequences of at most ``length`` positions."""
        return KeyValues(self.qkv.weight, batch, self.kv_heads, length, self.head_width)

    def forward(
        self, x: Tensor, table: Tensor, mask: Tensor | None = None, cache: KeyValues | None = None, start: int = 0
    ) -> Tensor:
        """Maps x (B, N, width) to the same shape.

        Args:
            x: a sequence, or what follows the ``start`` positions of ``cache``.
            table: (cos, sin) of its positions, with shape (N, d / 2, 2).
            mask: what may be seen, boolean with shape (B, 1, N, start + N); None: what is not later.
            cache: of the positions before, which is extended; then without a mask N is 1, or ``start`` 0.
            start: positions before.
        """
        both = self.heads + self.kv_heads
        packed = self.qkv(x).unflatten(-1, (both + self.kv_heads, self.head_width))
        turned = rotate(packed[:, :, :both], table).transpose(1, 2)
        q, k, v = turned[:, : self.heads], turned[:, self.heads :], packed[:, :, both:].transpose(1, 2)
        if cache is not None:
            k, v = cache.extend(start, k, v)
            q = q.to(k.dtype)
        attended = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None and start == 0, enable_gqa=self.kv_heads < self.heads
        )
        made: Tensor = self.out(attended.transpose(1, 2).flatten(2).to(x.dtype))
        return self.dropout(made) if self.training else made


class CausalBlock(nn.Module):
    """x += attention(norm1(x)); x += mlp(norm2(x)).

    Args:
        width: of input and output.
        heads: of the queries; divides ``width``.
        kv_heads: of keys and values; divides ``heads``; None: as many.
        hidden: width inside the MLP; None: :func:`published_hidden`.
        dropout: of the attention's output.
        ffn_dropout: of the MLP's output.
        drop_path: probability that a sample goes past one of the two, in training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int | None = None,
        hidden: int | None = None,
        dropout: float = 0.0,
        ffn_dropout: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = RMSNorm(width)
        self.attention = CausalAttention(width, heads, kv_heads, dropout)
        self.norm2 = RMSNorm(width)
        self.mlp = SwiGLU(width, hidden, ffn_dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self, x: Tensor, table: Tensor, mask: Tensor | None = None, cache: KeyValues | None = None, start: int = 0
    ) -> Tensor:
        """Maps x (B, N, width) to the same shape; see :meth:`CausalAttention.forward`."""
        attended: Tensor = self.attention(self.norm1(x), table, mask, cache, start)
        x = x + (self.drop_path(attended) if self.training else attended)
        made: Tensor = self.mlp(self.norm2(x))
        return x + (self.drop_path(made) if self.training else made)


def caches_of(blocks: Iterable[nn.Module], batch: int, length: int) -> list[KeyValues]:
    """Memory for each of the blocks, for ``batch`` sequences of at most ``length`` positions."""
    return [block.attention.cache(batch, length) for block in blocks if isinstance(block, CausalBlock)]
