"""The nearest row of a table: VQ-VAE's codebook, with all that changes it after a successful step.

    k = argmin_j |z - e_j|^2,  q = e_k

The codebook of VQ-VAE (van den Oord et al., arXiv:1711.00937), VQGAN (arXiv:2012.09841) and, of unit vectors, of
ViT-VQGAN and LlamaGen (arXiv:2110.04627, 2406.06525). ``size`` K is the number of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.nn.clustering import cluster_sums, kmeans
from smalti.nn.code_search import nearest_code, sampled_code
from smalti.nn.distributed import broadcast
from smalti.nn.gradient import gradient_copy, rotation, straight_through
from smalti.nn.precision import full_precision
from smalti.nn.unit import unit
from smalti.outputs import CODE_TERMS, CodebookRecord
from smalti.quantizers import check_size, gather, masked
from smalti.quantizers._table import Table

Estimator = Literal["straight_through", "gradient_copy", "rotation"]
Start = Literal["uniform", "normal", "kmeans"]


@dataclass(frozen=True, kw_only=True)
class EMA:
    """Codes as moving averages of the latents that chose them (van den Oord et al., arXiv:1711.00937, appendix A).

    Args:
        decay: of the averages.
        eps: keeps the size of an unused cluster above 0 (Laplace smoothing).
    """

    decay: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.99
    eps: Annotated[float, Field(gt=0.0)] = 1e-5


@dataclass(frozen=True, kw_only=True)
class Revival:
    """Dead codes move to latents of the current batch (Zeghidour et al., arXiv:2107.03312, section III-C).

    Args:
        patience: updates in a row without being chosen after which a code counts as dead.
    """

    patience: Annotated[int, Field(ge=1)] = 100


class Nearest(Table):
    """K rows of d channels; each position of a latent is replaced by the nearest row (arXiv:1711.00937).

    Args:
        size: number of codes K.
        channels: width d of a code.
        normalize: compare and return unit vectors (cosine codes; Yu et al., arXiv:2110.04627); the gradient through the
            norm is at most 1e4 times as long, see :func:`smalti.nn.unit.unit`.
        estimator: how the decoder's gradient passes the choice: ``straight_through``, ``gradient_copy`` or ``rotation``
            (Fifty et al., arXiv:2410.06424), see :mod:`smalti.nn.gradient`.
        codebook_gradient: ``gradient_copy`` only: that gradient also reaches the chosen rows.
        init: rows from ``uniform`` U(-1/K, 1/K), from ``normal`` N(0, 1), or by ``kmeans`` of the first batch in
            training, before it is quantized (arXiv:2107.03312, III-C), with accumulation of the first micro-batch;
            normalised codes start as unit vectors.
        ema: learn the rows by moving averages, in ``update``, and not by gradients.
        revival: move dead codes onto current latents, in ``update``.
        temperature: in training a code is drawn with probability softmax(-|z - e_j|^2 / temperature) (Lee et al.,
            arXiv:2203.01941); 0: the nearest one.
        usage_window: updates over which usage and perplexity are counted.
    """

    ema_counts: Tensor
    ema_sums: Tensor

    def __init__(
        self,
        *,
        size: Annotated[int, Field(ge=1)],
        channels: Annotated[int, Field(ge=1)],
        normalize: bool = False,
        estimator: Estimator = "straight_through",
        codebook_gradient: bool = False,
        init: Start = "uniform",
        ema: EMA | None = None,
        revival: Revival | None = None,
        temperature: Annotated[float, Field(ge=0.0)] = 0.0,
        usage_window: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__()
        _check(size, channels, estimator, codebook_gradient, init, ema)
        if temperature < 0:
            raise ValueError(f"temperature={temperature}: expected 0 or a positive number")
        self.size, self.channels = size, channels
        self.normalize = normalize
        self.estimator = estimator
        self.codebook_gradient = codebook_gradient
        self.ema, self.revival = ema, revival
        self.temperature = temperature
        self.weight = nn.Parameter(_start(size, channels, init, normalize), requires_grad=ema is None)
        self.count_usage(usage_window)
        if ema is not None:
            # One observation each, of the code itself: with 0 the first update multiplies codes by decay / (1 - decay).
            self.register_buffer("ema_counts", torch.ones(size))
            self.register_buffer("ema_sums", self.weight.detach().clone())
        if init == "kmeans":
            self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    @property
    def terms(self) -> frozenset[str]:
        """All losses over records; not ``codebook`` where moving averages and no gradients move the rows."""
        return CODE_TERMS if self.ema is None else CODE_TERMS - {"codebook"}

    def compared(self, z: Tensor) -> Tensor:
        """z (B, d, h, w), or its direction if codes are normalised."""
        return unit(z) if self.normalize else z

    def quantize(self, points: Tensor) -> CodebookRecord:
        """The nearest rows of points (B, d, h, w); k-means starts at the first batch."""
        flat = points.detach().permute(0, 2, 3, 1).reshape(-1, self.channels)
        if not self.frozen and self.waits_for_data():
            self._start_on(flat)
        rows = self.rows(points.dtype)
        indices = self._choose(flat, rows.detach()).view(points.shape[0], *points.shape[2:])
        quantized, indices = masked(gather(rows, indices, points), indices, points)
        latent = self._estimate(points, quantized)
        return CodebookRecord(
            z=points, quantized=quantized, latent=latent, codebook=rows, indices=indices, terms=self.terms
        )

    def _choose(self, points: Tensor, rows: Tensor) -> Tensor:
        """A row for each of the points (N, d): int64 with shape (N,)."""
        if self.training and self.temperature > 0:
            return sampled_code(points, rows, self.temperature)
        return nearest_code(points, rows)

    def _start_on(self, points: Tensor) -> None:
        """k-means of points (N, d) of all ranks; without a finite one the next batch starts."""
        centres = kmeans(points, self.size)
        if centres is not None:
            self.replace(unit(centres) if self.normalize else centres)
            self.note_start()

    def _estimate(self, z: Tensor, quantized: Tensor) -> Tensor:
        if not self.training:
            return quantized
        if self.estimator == "gradient_copy":
            return gradient_copy(z, quantized, codebook_gradient=self.codebook_gradient)
        return rotation(z, quantized) if self.estimator == "rotation" else straight_through(z, quantized)

    def rows(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All codes with shape (K, d), normalised if they are compared so, in at least float32."""
        rows = self.weight.to(torch.promote_types(self.weight.dtype, dtype))
        return unit(rows) if self.normalize else rows

    @torch.no_grad()
    def move(self, records: Sequence[CodebookRecord]) -> None:
        """Moving averages and revival as configured, equally on all ranks."""
        if self.ema is None and self.revival is None:
            return
        z = torch.cat([record.tokens for record in records]).to(self.weight.dtype)
        with full_precision():
            if self.ema is not None:
                indices = torch.cat([record.indices.flatten() for record in records])
                self._average(self.ema, *cluster_sums(z, indices, self.size))
            if self.revival is not None:
                self._revive(self.revival, z)

    def _average(self, ema: EMA, counts: Tensor, sums: Tensor) -> None:
        """N <- g N + (1 - g) n, m <- g m + (1 - g) sum z, e = m / N with N smoothed by eps."""
        self.ema_counts.lerp_(counts.to(self.ema_counts.dtype), 1.0 - ema.decay)
        self.ema_sums.lerp_(sums, 1.0 - ema.decay)
        total = self.ema_counts.sum()
        smoothed = (self.ema_counts + ema.eps) / (total + self.size * ema.eps) * total
        self.weight.copy_(self.ema_sums / smoothed[:, None])

    def _revive(self, revival: Revival, z: Tensor) -> None:
        """Puts dead codes on tokens of rank 0 that are drawn by hashing (update, code): no generator, no host sync."""
        assert self.window is not None  # a table fits a memory
        dead = self.window.unused >= revival.patience
        codes = torch.arange(self.size, device=z.device)
        candidates = broadcast(z[_hash(codes, self.window.updates) % len(z)])
        self.replace(candidates, dead & torch.isfinite(candidates).all(dim=1))
        self.window.unused.masked_fill_(dead, 0)

    @torch.no_grad()
    def replace(self, rows: Tensor, where: Tensor | None = None) -> None:
        """Sets the codes to rows (K, d), where the mask (K,) says so; averages start at one observation of each."""
        mask = torch.ones_like(self.weight[:, 0], dtype=torch.bool) if where is None else where
        self.weight.copy_(torch.where(mask[:, None], rows, self.weight))
        if self.ema is not None:
            self.ema_counts.copy_(torch.where(mask, 1.0, self.ema_counts))
            self.ema_sums.copy_(torch.where(mask[:, None], rows, self.ema_sums))


def _start(size: int, channels: int, init: Start, normalize: bool) -> Tensor:
    rows = (
        torch.randn(size, channels) if init == "normal" else torch.empty(size, channels).uniform_(-1 / size, 1 / size)
    )
    return unit(rows) if normalize else rows


def _hash(codes: Tensor, counter: Tensor) -> Tensor:
    """Non-negative pseudo-random int64 of each code under a counter (the mixing steps of splitmix64, 31 bits kept)."""
    mixed = codes * -7046029254386353131 + counter * -4658895280553007687
    for _ in range(2):
        mixed = (mixed ^ (mixed >> 29)) * -4658895280553007687
    return (mixed >> 32) & 0x7FFFFFFF


def _check(size: int, channels: int, estimator: str, codebook_gradient: bool, init: str, ema: EMA | None) -> None:
    check_size(size, f"size={size}")
    if channels < 1:
        raise ValueError(f"channels={channels}: expected a positive whole number")
    if estimator not in {"straight_through", "gradient_copy", "rotation"}:
        raise ValueError(f"estimator={estimator!r}: expected 'straight_through', 'gradient_copy' or 'rotation'")
    if init not in {"uniform", "normal", "kmeans"}:
        raise ValueError(f"init={init!r}: expected 'uniform', 'normal' or 'kmeans'")
    if codebook_gradient and estimator != "gradient_copy":
        raise ValueError("codebook_gradient=True: expected estimator='gradient_copy', the other hands it nothing")
    if codebook_gradient and ema is not None:
        raise ValueError("codebook_gradient=True: expected no ema, its rows take no gradient")
