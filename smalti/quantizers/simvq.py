"""SimVQ: a table that stays as it was drawn, seen through one learned linear map, so that all codes move together.

    e_j = W c_j,  c_j ~ N(0, 1 / d) fixed,  k = argmin_j |z - e_j|^2

(Zhu et al., arXiv:2411.02038; there with 65,536 codes of 128 channels and the loss codebook + 0.25 commitment.) In an
ordinary table only chosen rows get a gradient, and the others are left behind; here every gradient moves W. ``size`` K
is the number of rows.
"""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.nn.code_search import nearest_code
from smalti.nn.gradient import rotation, straight_through
from smalti.outputs import CodebookRecord
from smalti.quantizers import check_size, gather, masked
from smalti.quantizers._table import Table

Estimator = Literal["straight_through", "rotation"]


class SimVQ(Table):
    """K fixed rows of d channels through a learned d x d matrix; the nearest one is taken (arXiv:2411.02038).

    Args:
        size: number of codes K.
        channels: width d of a code.
        estimator: how the decoder's gradient passes the choice, see :mod:`smalti.nn.gradient`.
        usage_window: updates over which usage and perplexity are counted.
    """

    table: Tensor

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=1)],
        channels: Annotated[int, Field(ge=1)],
        estimator: Estimator = "straight_through",
        usage_window: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__()
        check_size(size, f"size={size}")
        if estimator not in {"straight_through", "rotation"}:
            raise ValueError(f"estimator={estimator!r}: expected 'straight_through' or 'rotation'")
        self.size, self.channels, self.estimator = size, channels, estimator
        self.register_buffer("table", torch.randn(size, channels) * channels**-0.5)
        self.map = nn.Linear(channels, channels, bias=False)
        self.count_usage(usage_window)

    def quantize(self, points: Tensor) -> CodebookRecord:
        """The nearest mapped rows of points (B, d, h, w); -1 and nan where they are not finite."""
        rows = self.rows(points.dtype)
        flat = points.detach().permute(0, 2, 3, 1).reshape(-1, self.channels)
        indices = nearest_code(flat, rows.detach()).view(points.shape[0], *points.shape[2:])
        quantized, indices = masked(gather(rows, indices, points), indices, points)
        passes = rotation if self.estimator == "rotation" else straight_through
        latent = passes(points, quantized) if self.training else quantized
        return CodebookRecord(z=points, quantized=quantized, latent=latent, codebook=rows, indices=indices)

    def rows(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All codes with shape (K, d), in at least float32."""
        wide = torch.promote_types(self.table.dtype, dtype)
        return self.table.to(wide) @ self.map.weight.to(wide).T
