"""Quantizers: latents -> codes. They know nothing of encoders, adapters or losses."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from smalti.nn.freezing import Freezable
from smalti.nn.memory_format import like, with_like_gradient
from smalti.nn.precision import at_least_float32, full_precision
from smalti.nn.starting import StartsOnData
from smalti.outputs import CODE_TERMS, CodebookRecord
from smalti.quantizers._usage import UsageWindow
from smalti.registry import Part

NO_CODE = -1  # token of a latent that is not finite
MOST_CODES = 2**62  # so that sums of two indices are int64
MOST_COUNTED = 2**24  # codes whose use is counted one by one: 0.4 GiB


class Quantizer(Part, Freezable, StartsOnData):
    """Base of all quantizers: each position of a latent gets one of K codes.

    A subclass says its ``channels`` d and ``size`` K in its constructor, there calls :meth:`count_usage`, and defines
    :meth:`quantize`; where codes are compared with something else than the latent itself, also :meth:`compared`. Its
    forward pass changes no state, except that a start by k-means happens at the first batch; what changes after a step
    that succeeded, changes in ``update``. It computes in at least float32, autocast off.

    ``depth`` is the number of index planes: 1, or n for one of n steps. ``terms`` are the short names of losses over
    records that mean something for it.
    """

    kind = "quantizer"
    package = "smalti.quantizers"
    stand_ins = (nn.Module,)
    channels: int
    size: int
    depth: int = 1
    window: UsageWindow | None

    @property
    def terms(self) -> frozenset[str]:
        """Short names of the losses over records that mean something for it."""
        return CODE_TERMS

    def forward(self, z: Tensor) -> CodebookRecord:
        """Quantizes z with shape (B, d, h, w).

        Where z is not finite there is no code: the token is -1, which no codebook has, and the latent is nan.
        """
        with full_precision():
            return self.quantize(self.compared(at_least_float32(with_like_gradient(z))))

    def compared(self, z: Tensor) -> Tensor:
        """What of z (B, d, h, w) is compared with codes, in the same shape: z itself, its direction, its bounded form.

        Not finite where z is not.
        """
        return z

    @abstractmethod
    def quantize(self, points: Tensor) -> CodebookRecord:
        """The codes of points (B, d, h, w) that are ``compared``, or, in a step of several, what is left of them.

        Called in at least float32, autocast off.
        """

    @abstractmethod
    def lookup(self, indices: Tensor) -> Tensor:
        """The codes with shape (B, d, h, w) of ``indices`` (B, h, w), or (B, depth, h, w) if depth is not 1."""

    @abstractmethod
    def mean(self) -> Tensor:
        """The mean code with shape (d,), weighted by how often codes were chosen over the window if that is known."""

    def count_usage(self, window: int) -> None:
        """Counts which codes are chosen over ``window`` updates, if there are few enough to be counted."""
        self.window = UsageWindow(self.size, window) if self.size <= MOST_COUNTED else None

    def weights(self) -> Tensor:
        """How often each code was chosen over the window, with shape (K,); all 1 before the first update."""
        if self.window is None:
            raise TypeError(f"{type(self).__name__} has {self.size:,} codes: more than are counted")
        counts = self.window.counts.sum(dim=0)
        return torch.where(counts.sum() > 0, counts, torch.ones_like(counts))

    def usage(self) -> Sequence[Mapping[str, Tensor]]:
        """For each index plane ``usage`` and ``perplexity`` over the last updates, scalars; nothing if not counted."""
        return [{} if self.window is None else self.window.measure()]

    @torch.no_grad()
    def update(self, records: Sequence[CodebookRecord]) -> None:
        """Counts usage from the detached records of all micro-batches; what else moves is a subclass's, in ``move``."""
        if not records:
            return
        indices = torch.cat([record.indices.flatten() for record in records])
        if self.window is not None:
            self.window.observe(indices)
        if not self.frozen:
            self.move(records)

    def move(self, records: Sequence[CodebookRecord]) -> None:
        """Changes what is learned outside of gradients, equally on all ranks; nothing by default."""


def check_size(size: int, what: str) -> None:
    """Refuses a number of codes that is not positive, or whose indices are no int64.

    Raises:
        ValueError: with the number, and ``what`` makes it.
    """
    if not 1 <= size <= MOST_CODES:
        raise ValueError(f"{what}: {size:,} codes, expected 1 to 2^62")


def masked(quantized: Tensor, indices: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Codes (B, d, h, w) and indices (B, h, w), nan and -1 where z (B, d, h, w) is not finite."""
    finite = torch.isfinite(z.detach()).all(dim=1)
    return torch.where(finite[:, None], quantized, torch.nan), torch.where(finite, indices, NO_CODE)


def mean_row(rows: Tensor, weights: Tensor) -> Tensor:
    """The mean, with shape (d,), of a table (K, d) whose rows count as often as ``weights`` (K,) says."""
    weights = weights.to(rows.dtype)
    return (weights[:, None] * rows).sum(dim=0) / weights.sum()


def gather(rows: Tensor, indices: Tensor, points: Tensor | None = None) -> Tensor:
    """Rows of a table (K, d) at indices (B, h, w): (B, d, h, w), in the memory format of points (B, d, h, w), if given.

    Else contiguous. A view of what was looked up would be channels_last, and silently switch a convolution behind it.
    """
    found = nn.functional.embedding(indices, rows).permute(0, 3, 1, 2)
    return found.contiguous() if points is None else like(found, points)
