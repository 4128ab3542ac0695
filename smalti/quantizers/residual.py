"""Residual quantization: each step quantizes what the steps before it left over.

    r_1 = z,  q_i = s_i Q_i(r_i / s_i),  r_{i+1} = r_i - q_i,  q = q_1 + ... + q_n,  s_i = shrink^(1 - i)

RQ-VAE (Lee et al., arXiv:2203.01941: one table for all steps, depth 4, 16,384 codes, s_i = 1) and SoundStream
(Zeghidour et al., arXiv:2107.03312: a table a step, and in training only the first n' of them). What a quantizer
compares with its codes in place of z, its direction (cosine codes, ``bsq``) or its bounded form (``fsq``), is made once
and is what the steps work on. Each step is measured by itself: a commitment term on step i is, for s_i = 1,
|z - sg(q_1 + ... + q_i)|^2, as in RQ-VAE. ``size`` K is that of one step; the n index planes of a position tell K^n
codes.
"""

import math
import random
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.config import build, config_of
from smalti.nn.gradient import straight_through
from smalti.nn.memory_format import like
from smalti.outputs import CodebookRecord
from smalti.quantizers import NO_CODE, Quantizer
from smalti.quantizers._usage import UsageWindow


class Residual(Quantizer):
    """n steps of a quantizer, each on what is left (arXiv:2203.01941, 2107.03312).

    A plane of -1 adds nothing, so the first planes of tokens decode to a coarser picture.

    Args:
        quantizer: of the first step; the others have the same options.
        steps: n.
        shared: whether all steps use the table of the first, or each one of its own.
        shrink: how many times smaller the codes of each step are than those of the step before: 1 for tables that learn
            it; for codes that do not learn 2 (``lfq``, ``bsq``), or L - 1 for ``fsq`` with L values a channel, which
            leaves at most that part of its range over.
        dropout: probability that an update in training is quantized by the first n' steps only, n' uniform in 1 to n;
            the same n' in all processes and micro-batches of an update.
        usage_window: updates over which usage and perplexity of each step are counted.
    """

    def __init__(
        self,
        *,
        quantizer: Quantizer,
        steps: Annotated[int, Field(ge=2, le=64)] = 4,
        shared: bool = False,
        shrink: Annotated[float, Field(ge=1.0)] = 1.0,
        dropout: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0,
        usage_window: Annotated[int, Field(ge=1)] = 100,
    ) -> None:
        super().__init__()
        if quantizer.depth != 1:
            raise ValueError(f"quantizer: expected one of a single step, not of {quantizer.depth}: ask for more steps")
        if not 2 <= steps <= 64:
            raise ValueError(f"steps={steps}: expected 2 to 64")
        if not 0.0 <= dropout <= 1.0:
            raise ValueError(f"dropout={dropout}: expected a probability")
        if not 1.0 <= shrink < math.inf:
            raise ValueError(f"shrink={shrink}: expected a number from 1")
        self.size, self.channels, self.depth = quantizer.size, quantizer.channels, steps
        self.shared, self.dropout = shared, dropout
        self.scales = tuple(shrink**-number for number in range(steps))
        self.window = None
        options, others = config_of(quantizer), 0 if shared else steps - 1
        more = [build(options, Quantizer) for _ in range(others)]  # type: ignore[type-abstract]
        self.quantizers = nn.ModuleList([quantizer, *more])
        self.windows = nn.ModuleList(UsageWindow(self.size, usage_window) for _ in range(steps))

    @property
    def terms(self) -> frozenset[str]:
        """Those of its steps."""
        return self._step(0).terms

    @property
    def forbids_graphs(self) -> str | None:
        """Why its passes cannot be recorded, or None."""
        return f"dropout={self.dropout}: how many steps are used is drawn on the host" if self.dropout > 0.0 else None

    def _step(self, number: int) -> Quantizer:
        return self.quantizers[0 if self.shared else number]  # type: ignore[return-value]

    def compared(self, z: Tensor) -> Tensor:
        """What the quantizer compares of z (B, d, h, w)."""
        return self._step(0).compared(z)

    def quantize(self, points: Tensor) -> CodebookRecord:
        """Indices (B, n, h, w) of points (B, d, h, w), -1 in the planes of steps that were left out."""
        left, steps, codes = points, [], []
        for number in range(self._used()):
            scale = self.scales[number]
            record = self._step(number).quantize(left / scale)
            steps.append(record)
            codes.append(record.quantized * scale)
            left = left - codes[-1].detach()
        quantized = like(torch.stack(codes).sum(dim=0), points)
        planes = [record.indices for record in steps]
        planes += [torch.full_like(planes[0], NO_CODE)] * (self.depth - len(steps))
        return CodebookRecord(
            z=points,
            quantized=quantized,
            latent=straight_through(points, quantized) if self.training else quantized,
            indices=torch.stack(planes, dim=1),
            terms=self.terms,
            steps=tuple(steps),
        )

    def _used(self) -> int:
        """How many steps this batch gets: drawn from the number of updates, so that all processes draw the same."""
        if not self.training or self.dropout <= 0.0:
            return self.depth
        draw = random.Random(int(self.windows[0].updates))  # type: ignore[arg-type]
        return draw.randint(1, self.depth) if draw.random() < self.dropout else self.depth

    def lookup(self, indices: Tensor) -> Tensor:
        """The sums (B, d, h, w) of the codes of ``indices`` (B, n, h, w), planes of -1 left out."""
        found = []
        for number in range(self.depth):
            plane = indices[:, number]
            code = self._step(number).lookup(plane.clamp(min=0)) * self.scales[number]
            found.append(torch.where((plane >= 0)[:, None], code, torch.zeros_like(code)))
        return torch.stack(found).sum(dim=0)

    @torch.no_grad()
    def mean(self) -> Tensor:
        """The sum of the mean codes of the steps, with shape (d,)."""
        means = [self._step(number).mean() * scale for number, scale in enumerate(self.scales)]
        return torch.stack(means).sum(dim=0)

    @torch.no_grad()
    def update(self, records: Sequence[CodebookRecord]) -> None:
        """Updates each step from its records, and counts usage of each plane; a shared table sees all steps at once."""
        if not records:
            return
        for number in range(self.depth):
            planes = [record.indices[:, number].flatten() for record in records]
            self.windows[number].observe(torch.cat(planes))  # type: ignore[operator]
        if self.shared:
            self._step(0).update([step for record in records for step in record.steps])
            return
        for number in range(self.depth):
            self._step(number).update([record.steps[number] for record in records if number < len(record.steps)])

    def usage(self) -> list[Mapping[str, Tensor]]:
        """For each step ``usage`` and ``perplexity`` over the last updates, scalars."""
        return [window.measure() for window in self.windows]  # type: ignore[operator]
