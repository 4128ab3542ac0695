"""Gumbel softmax: a code is drawn from a distribution that the latent sets, and the draw has a gradient.

    l = W z + b,  y = softmax((l + n) / tau),  k = argmax_j y_j,  q = e_k + sum_j (y_j - sg y_j) sg e_j

with Gumbel noise n (Jang et al., arXiv:1611.01144; Maddison et al., arXiv:1611.00712). The quantizer of DALL-E's dVAE
(Ramesh et al., arXiv:2102.12092) and of taming-transformers' Gumbel VQGAN. ``size`` K is the number of rows e. Trained
with the term ``categorical_kl``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.code_search import largest_product
from smalti.nn.memory_format import like
from smalti.nn.precision import full_precision
from smalti.nn.soft_assignment import Kernel, SoftAssignment, soft_assign
from smalti.outputs import CodebookRecord
from smalti.quantizers import check_size, gather, masked
from smalti.quantizers._table import Table


@dataclass(frozen=True, kw_only=True)
class LogitsRecord(CodebookRecord):
    """A record of codes that are drawn by logits W z + b: its soft assignment is softmax of these / temperature.

    Args:
        weight: W with shape (K, d).
        bias: b with shape (K,).
    """

    weight: Tensor
    bias: Tensor

    @classmethod
    def assign(cls, records: Sequence[CodebookRecord], temperature: float, kernel: Kernel = "auto") -> SoftAssignment:
        """Soft assignments of G records of one shape, each result with G in front."""
        known = [record for record in records if isinstance(record, LogitsRecord)]
        with full_precision():
            z = torch.stack([F.pad(record.tokens, (0, 1), value=1.0) for record in known])
            keys = torch.stack([torch.cat([record.weight, record.bias[:, None]], dim=1) for record in known])
            return soft_assign(z / temperature, keys, kernel=kernel)


@dataclass(frozen=True, kw_only=True)
class Anneal:
    """tau falls by a cosine from ``start`` to ``end`` over ``updates`` (Ramesh et al., arXiv:2102.12092, appendix A.2).

    Args:
        start: tau of the first update.
        end: tau from ``updates`` on.
        updates: number of updates.
    """

    start: Annotated[float, Field(gt=0.0)] = 1.0
    end: Annotated[float, Field(gt=0.0)] = 1 / 16
    updates: Annotated[int, Field(ge=1)] = 150_000


class Gumbel(Table):
    """K rows of d channels, one drawn by logits of z (Jang et al., arXiv:1611.01144; DALL-E, arXiv:2102.12092).

    Out of training the most likely code is taken, without noise: tokens of an image are the same each time. In training
    the probabilities of all N latents, (N, K), are held for the gradient, and all rows of z's distribution get some.

    Args:
        size: number of codes K.
        channels: width d of a code, and of the latent that sets the logits.
        hard: the decoder gets one code, as in taming-transformers; otherwise in training the mixture sum_j y_j e_j, as
            DALL-E.
        temperature: tau, in units of logits, and how it falls.
        usage_window: updates over which usage and perplexity are counted.
    """

    updates: Tensor

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=1)],
        channels: Annotated[int, Field(ge=1)],
        hard: bool = True,
        temperature: Anneal | None = None,
        usage_window: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__()
        check_size(size, f"size={size}")
        self.size, self.channels, self.hard = size, channels, hard
        self.temperature = Anneal() if temperature is None else temperature
        _check(self.temperature)
        self.logits = nn.Linear(channels, size)
        self.weight = nn.Parameter(torch.randn(size, channels))
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.count_usage(usage_window)

    @property
    def terms(self) -> frozenset[str]:
        """Those over distributions: no latent is to be near a code here."""
        return frozenset({"categorical_kl", "disentangle", "entropy"})

    def tau(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The temperature of the next batch, a scalar."""
        anneal = self.temperature
        share = (self.updates.to(dtype) / anneal.updates).clamp(max=1.0)
        return anneal.end + (anneal.start - anneal.end) * 0.5 * (1.0 + torch.cos(torch.pi * share))

    def quantize(self, points: Tensor) -> LogitsRecord:
        """Codes of points (B, d, h, w), drawn in training and the most likely ones otherwise."""
        rows = self.rows(points.dtype)
        weight, bias = self.logits.weight.to(rows.dtype), self.logits.bias.to(rows.dtype)
        flat = points.permute(0, 2, 3, 1).reshape(-1, self.channels)
        shape = (points.shape[0], *points.shape[2:])
        share = self._draw(F.linear(flat, weight, bias)) if self.training else None
        chosen = largest_product(flat, weight, bias) if share is None else share.argmax(dim=1)
        quantized, indices = masked(gather(rows, chosen.view(shape), points), chosen.view(shape), points)
        latent = quantized
        if share is not None:
            mixed = (share @ (rows.detach() if self.hard else rows)).view(*shape, -1).permute(0, 3, 1, 2)
            latent = quantized + (mixed - mixed.detach()) if self.hard else like(mixed, points)
        return LogitsRecord(
            z=points,
            quantized=quantized,
            latent=latent,
            codebook=rows,
            indices=indices,
            terms=self.terms,
            weight=weight,
            bias=bias,
        )

    def _draw(self, logits: Tensor) -> Tensor:
        """softmax((l + n) / tau) of logits (N, K), with noise from torch's generator of the device."""
        noise = -torch.empty_like(logits).exponential_().log()
        return torch.softmax((logits + noise) / self.tau(logits.dtype), dim=1)

    def rows(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All codes with shape (K, d), in at least float32."""
        return self.weight.to(torch.promote_types(self.weight.dtype, dtype))

    @torch.no_grad()
    def move(self, records: Sequence[CodebookRecord]) -> None:
        """One update further on the way of the temperature."""
        self.updates.add_(1)


def _check(anneal: Anneal) -> None:
    if not (anneal.start > 0 and anneal.end > 0 and anneal.updates >= 1):
        raise ValueError(f"temperature={anneal}: expected positive temperatures and at least 1 update")
