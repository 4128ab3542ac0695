"""One codebook: rows, nearest-row choice, gradient estimator, and all that changes it after a successful step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.bottlenecks._usage import UsageWindow
from smalti.nn.clustering import cluster_sums, kmeans
from smalti.nn.code_search import nearest_code
from smalti.nn.distributed import broadcast
from smalti.nn.freezing import Freezable
from smalti.nn.gradient import gradient_copy, straight_through
from smalti.nn.precision import at_least_float32, full_precision
from smalti.nn.starting import StartsOnData
from smalti.nn.unit import unit
from smalti.outputs import CodebookRecord

Estimator = Literal["straight_through", "gradient_copy"]
Start = Literal["uniform", "normal", "kmeans"]
NO_CODE = -1  # token of a latent that is not finite


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


class Codebook(Freezable, StartsOnData):
    """K rows of d channels; each position of a latent is replaced by the nearest row (arXiv:1711.00937).

    Args:
        size: number of codes K.
        channels: width d of a code.
        normalize: compare and return unit vectors (cosine codes; Yu et al., arXiv:2110.04627); the gradient through the
            norm is at most 1e4 times as long, see :func:`smalti.nn.unit.unit`.
        estimator: how the decoder's gradient passes the choice.
        codebook_gradient: ``gradient_copy`` only: that gradient also reaches the chosen rows.
        init: rows from U(-1/K, 1/K), from N(0, 1), or k-means of the first batch in training, before it is quantized
            (arXiv:2107.03312, III-C); with accumulation of the first micro-batch.
        ema: learn the rows by moving averages and not by gradients.
        revival: move dead codes.
        usage_window: updates over which usage is counted.
    """

    ema_counts: Tensor
    ema_sums: Tensor

    def __init__(
        self,
        size: int,
        channels: int,
        *,
        normalize: bool = False,
        estimator: Estimator = "straight_through",
        codebook_gradient: bool = False,
        init: Start = "uniform",
        ema: EMA | None = None,
        revival: Revival | None = None,
        usage_window: int = 100,
    ) -> None:
        super().__init__()
        _check(size, channels, estimator, codebook_gradient, init, ema)
        self.size, self.channels = size, channels
        self.normalize = normalize
        self.estimator = estimator
        self.codebook_gradient = codebook_gradient
        self.ema, self.revival = ema, revival
        self.weight = nn.Parameter(_start(size, channels, init, normalize), requires_grad=ema is None)
        self.window = UsageWindow(size, usage_window)
        if ema is not None:
            # One observation each, of the code itself: with 0 the first update multiplies codes by decay / (1 - decay).
            self.register_buffer("ema_counts", torch.ones(size))
            self.register_buffer("ema_sums", self.weight.detach().clone())
        if init == "kmeans":
            self.register_buffer("initialized", torch.zeros((), dtype=torch.bool))

    def forward(self, z: Tensor) -> CodebookRecord:
        """Quantizes z with shape (B, d, h, w); changes no state, except that k-means starts at the first batch.

        Where z is not finite there is no nearest code: the token is -1, which no codebook has, and the latent is nan.
        """
        with full_precision():
            z = at_least_float32(z)
            z = unit(z) if self.normalize else z
            flat = z.detach().permute(0, 2, 3, 1).reshape(-1, self.channels)
            if not self.frozen and self.waits_for_data():
                self._start_on(flat)
            rows = self.rows(z.dtype)
            nearest = nearest_code(flat, rows).view(z.shape[0], *z.shape[2:])
            finite = torch.isfinite(z.detach()).all(dim=1)
            quantized = torch.where(finite[:, None], _gather(rows, nearest), torch.nan)
            return CodebookRecord(
                z=z,
                quantized=quantized,
                latent=self._estimate(z, quantized),
                codebook=rows,
                indices=torch.where(finite, nearest, NO_CODE),
            )

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
        return straight_through(z, quantized)

    def rows(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """All codes with shape (K, d), normalised if they are compared so, in at least float32."""
        rows = self.weight.to(torch.promote_types(self.weight.dtype, dtype))
        return unit(rows) if self.normalize else rows

    def lookup(self, indices: Tensor) -> Tensor:
        """The codes of ``indices`` (B, h, w), with shape (B, d, h, w)."""
        with full_precision():
            return _gather(self.rows(), indices)

    @torch.no_grad()
    def mean(self) -> Tensor:
        """The mean code with shape (d,), weighted by how often codes were chosen over the window.

        Before the first update all codes count equally.
        """
        counts = self.window.counts.sum(dim=0)
        rows = self.rows()
        weights = torch.where(counts.sum() > 0, counts, torch.ones_like(counts)).to(rows.dtype)
        return (weights[:, None] * rows).sum(dim=0) / weights.sum()

    @torch.no_grad()
    def update(self, records: Sequence[CodebookRecord]) -> None:
        """Counts usage, then moving averages and revival as configured, equally on all ranks."""
        if not records:
            return
        z = torch.cat([record.z.permute(0, 2, 3, 1).reshape(-1, self.channels) for record in records])
        indices = torch.cat([record.indices.flatten() for record in records])
        with full_precision():
            z = z.to(self.weight.dtype)
            counts, sums = cluster_sums(z, indices, self.size)
            self.window.add(counts)
            if self.frozen:
                return
            if self.ema is not None:
                self._average(self.ema, counts, sums)
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

    def usage(self) -> dict[str, Tensor]:
        """``usage`` and ``perplexity`` over the window, scalars."""
        return self.window.measure()


def _gather(rows: Tensor, indices: Tensor) -> Tensor:
    # Contiguous: a channels-last view would silently switch a convolution behind it to another memory format.
    return F.embedding(indices, rows).permute(0, 3, 1, 2).contiguous()


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
    for name, value in (("codebook_size", size), ("code_channels", channels)):
        if value < 1:
            raise ValueError(f"{name}={value}: expected a positive whole number")
    if estimator not in {"straight_through", "gradient_copy"}:
        raise ValueError(f"estimator={estimator!r}: expected 'straight_through' or 'gradient_copy'")
    if init not in {"uniform", "normal", "kmeans"}:
        raise ValueError(f"init={init!r}: expected 'uniform', 'normal' or 'kmeans'")
    if codebook_gradient and estimator != "gradient_copy":
        raise ValueError("codebook_gradient=True: expected estimator='gradient_copy', the other hands it nothing")
    if codebook_gradient and ema is not None:
        raise ValueError("codebook_gradient=True: expected no ema, its rows take no gradient")
