"""IBQ: the gradient goes through the index, so that every code gets one.

    p_j = softmax_j(z . e_j),  k = argmax_j z . e_j,  index = onehot(k) + (p - sg p),  q = sum_j index_j e_j

(Shi et al., arXiv:2412.02692; there with 16,384 codes of 256 channels, the losses codebook, commitment and entropy.)
Forward the latent is the row e_k itself. Backward the chosen row gets g, and z and all rows what comes through p, which
is attention with the codes as keys and values: computed as such, nothing of size N x K is held where torch's kernels
hold none. Codes are compared by their product with z, not by distance. ``size`` K is the number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.code_search import largest_product
from smalti.nn.precision import full_precision
from smalti.nn.soft_assignment import Kernel, SoftAssignment, soft_assign
from smalti.outputs import CodebookRecord
from smalti.quantizers import check_size, gather, masked
from smalti.quantizers._table import Table


@dataclass(frozen=True, kw_only=True)
class ProductRecord(CodebookRecord):
    """A record of codes that are compared by their product with z: its logits are z . e_j / temperature."""

    by_distance: ClassVar[bool] = False

    @classmethod
    def assign(cls, records: Sequence[CodebookRecord], temperature: float, kernel: Kernel = "auto") -> SoftAssignment:
        """Soft assignments of G records of one shape, each result with G in front."""
        rows = torch.stack([record.codebook for record in records if record.codebook is not None])
        with full_precision():
            z = torch.stack([record.tokens for record in records])
            return soft_assign(z / temperature, rows, kernel=kernel)


class IBQ(Table):
    """K rows of d channels; the one with the largest product with z is taken (arXiv:2412.02692).

    Args:
        size: number of codes K.
        channels: width d of a code.
        usage_window: updates over which usage and perplexity are counted.
    """

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=1)],
        channels: Annotated[int, Field(ge=1)],
        usage_window: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__()
        check_size(size, f"size={size}")
        self.size, self.channels = size, channels
        self.weight = nn.Parameter(torch.empty(size, channels).uniform_(-1 / size, 1 / size))
        self.count_usage(usage_window)

    def quantize(self, points: Tensor) -> ProductRecord:
        """The rows of largest product with points (B, d, h, w); -1 and nan where they are not finite."""
        rows = self.rows(points.dtype)
        flat = points.permute(0, 2, 3, 1).reshape(-1, self.channels)
        indices = largest_product(flat.detach(), rows.detach()).view(points.shape[0], *points.shape[2:])
        quantized, indices = masked(gather(rows, indices, points), indices, points)
        latent = quantized
        if self.training:
            soft = F.scaled_dot_product_attention(flat[None], rows[None], rows.detach()[None], scale=1.0)[0]
            soft = soft.view(points.shape[0], *points.shape[2:], self.channels).permute(0, 3, 1, 2)
            latent = quantized + (soft - soft.detach())
        return ProductRecord(z=points, quantized=quantized, latent=latent, codebook=rows, indices=indices)

    def rows(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All codes with shape (K, d), in at least float32."""
        return self.weight.to(torch.promote_types(self.weight.dtype, dtype))
