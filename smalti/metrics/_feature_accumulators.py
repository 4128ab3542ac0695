"""What metrics of features accumulate in: moments, or the features themselves; any split over ranks gives the whole.

Importing this imports torchmetrics, which takes over a second: only ``Metric.create`` does.
"""

import weakref
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from smalti.metrics import _stores
from smalti.metrics._moments import Moments, add_rows, merged, moments_of, new_total
from smalti.registry import UserError


class _Features(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """Of real and made images, in lists of tensors whose first dimension is joined by the subclass.

    ``images`` and ``width`` say after ``compute()`` how many images there were, and how many features each.
    """

    full_state_update = False
    images = 0
    width = 0

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        """Every rank gives one tensor of each state, also one without an image; they come in the order of ranks."""
        for name in self._defaults:
            setattr(self, name, [self.joined(name).to(self.device)])
        super()._sync_dist(dist_sync_fn, process_group)

    @abstractmethod
    def joined(self, name: str) -> Tensor:
        """All of a state as one tensor."""

    def reset(self) -> None:
        """Forgets everything."""
        super().reset()
        self.width = 0

    def check_width(self, width: int) -> None:
        """Refuses features of another width than before."""
        if self.width not in {0, width}:
            raise UserError(
                f"an image has {width} features, another had {self.width}: take images of one size, or a network that "
                "resizes them"
            )
        self.width = width


class FeatureMoments(_Features):
    """Moments of the features of real and made images, in float64.

    Args:
        summarize: (real, made) to name -> number.
    """

    real: list[Tensor]
    made: list[Tensor]

    def __init__(self, summarize: Callable[[Moments, Moments], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.summarize = summarize
        self.add_state("real", [], dist_reduce_fx=None)
        self.add_state("made", [], dist_reduce_fx=None)

    def update(self, real: Tensor | None, made: Tensor) -> None:
        """Adds features with shape (B, d); of real images None, if theirs are known."""
        self.check_width(made.shape[1])
        for totals, features in ((self.real, real), (self.made, made)):
            if features is not None:
                totals[:] = [merged(totals) if totals else new_total(features.shape[1], features.device)]
                add_rows(totals[0], features)

    def joined(self, name: str) -> Tensor:
        """One total with shape (d + 1, d + 1), or (0, 0) without a row."""
        totals = [total for total in getattr(self, name) if total.numel()]
        return merged(totals) if totals else torch.zeros(0, 0, dtype=torch.float64)

    def compute(self) -> dict[str, Tensor]:
        """Name -> number, of moments on the CPU."""
        real, made = (moments_of(merged(totals).cpu()) for totals in (self.real, self.made))
        self.images, self.width = made.count or 0, len(made.mean)
        return dict(self.summarize(real, made))


class FeatureSets(_Features):
    """All features of real and made images, in an order that images have by themselves, whatever batches and ranks.

    They are kept on the CPU, as ``_stores`` says.

    Args:
        summarize: (real, made), each with shape (N, d), to name -> number; real with shape (0, 0) if none were added.
    """

    real: list[Tensor]
    made: list[Tensor]
    keys: list[Tensor]

    def __init__(self, summarize: Callable[[Tensor, Tensor], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.summarize = summarize
        for name in ("real", "made", "keys"):
            self.add_state(name, [], dist_reduce_fx=None)
        self.filed: dict[int, weakref.ref[Tensor]] = {}  # the tensors that are in files, by their identity

    def update(self, real: Tensor | None, made: Tensor, keys: Tensor) -> None:
        """Adds features with shape (B, d), and a number for each image, int64 with shape (B,), that orders them."""
        self.check_width(made.shape[1])
        self.keys.append(keys.cpu())
        for rows, features in ((self.real, real), (self.made, made)):
            if features is not None:
                rows.append(features.detach().float().cpu())
        # Counted anew each time: states may be put back from a file, or merged.
        kept = sum(part.numel() for part in (*self.real, *self.made) if not self._is_filed(part))
        if kept * _stores.BYTES > _stores.MOST_IN_MEMORY:
            self._spill()

    def reset(self) -> None:
        """Forgets everything."""
        super().reset()
        self.filed = {}

    def joined(self, name: str) -> Tensor:
        """All rows, of keys with shape (N,), of features (N, d) or (0, 0)."""
        kept = [part for part in getattr(self, name) if len(part)]
        if kept:
            return torch.cat(kept)
        return torch.zeros(0, dtype=torch.int64) if name == "keys" else torch.zeros(0, 0)

    def compute(self) -> dict[str, Tensor]:
        """Name -> number."""
        keys = torch.cat([torch.zeros(0, dtype=torch.int64), *(part.cpu() for part in self.keys)])
        order = keys.sort(stable=True).indices
        made = _stores.in_order(self.made, order)
        real = _stores.in_order(self.real, order)
        self.images, self.width = len(keys), made.shape[1]
        return dict(self.summarize(real, made))

    def _spill(self) -> None:
        """Moves what was added last, and is in memory, to a file."""
        for rows in (self.real, self.made):
            start = len(rows)
            while start and not self._is_filed(rows[start - 1]):
                start -= 1
            if start < len(rows):
                rows[start:] = [_stores.spilled(rows[start:])]
                self.filed[id(rows[start])] = weakref.ref(rows[start])

    def _is_filed(self, part: Tensor) -> bool:
        known = self.filed.get(id(part))
        return known is not None and known() is part


def image_keys(images: Tensor) -> Tensor:
    """A number for each of the images (B, C, H, W), int64 with shape (B,), by their values alone.

    Example:
        >>> images = torch.rand(3, 1, 2, 2)
        >>> bool((image_keys(images)[[2, 0]] == image_keys(images[[2, 0]])).all())
        True
    """
    places = torch.arange(1, images[0].numel() + 1, device=images.device)
    factors = places * 0x9E3779B97F4A7C1  # odd multiples that have nothing to do with each other, modulo 2^64
    factors = (factors ^ (factors >> 29)) * 0x3F58476D1CE4E5B
    factors = (factors ^ (factors >> 32)) | 1
    bits = [image.detach().float().contiguous().view(torch.int32).flatten().long() for image in images]
    return torch.stack([(row * factors).sum() for row in bits])
