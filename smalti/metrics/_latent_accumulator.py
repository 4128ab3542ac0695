"""What statistics of latents accumulate in.

Importing this imports torchmetrics, which takes over a second: only ``Metric.create`` does.
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from smalti.metrics._latent_moments import merged_sums
from smalti.registry import UserError


class LatentSums(Metric):  # type: ignore[misc]  # torchmetrics is not seen by the type checker
    """Sums of moments, in float64. ``whole`` are after ``compute()`` those of all ranks.

    Args:
        summarize: sums to name -> number.
    """

    full_state_update = False
    sums: list[Tensor]
    whole: Tensor | None = None

    def __init__(self, summarize: Callable[[Tensor], Mapping[str, Tensor]]) -> None:
        super().__init__()
        self.summarize = summarize
        self.add_state("sums", [], dist_reduce_fx=None)

    def update(self, sums: Tensor) -> None:
        """Adds the sums of a batch.

        Raises:
            UserError: if it has another number of channels than others.
        """
        if self.sums and self.sums[0].shape != sums.shape:
            raise UserError(
                f"a latent has {sums.shape[1] - 1} channels, another had {self.sums[0].shape[1] - 1}: expected as many"
            )
        self.sums[:] = [merged_sums([*self.sums, sums])]

    def _sync_dist(self, dist_sync_fn: Any = gather_all_tensors, process_group: Any = None) -> None:
        """Every rank gives one tensor, also one without an image."""
        self.sums = [merged_sums(self.sums).to(self.device)]
        super()._sync_dist(dist_sync_fn, process_group)

    def compute(self) -> dict[str, Tensor]:
        """Name -> number, on the CPU."""
        self.whole = merged_sums([part.cpu() for part in self.sums])
        return dict(self.summarize(self.whole))
