"""Precision and recall of a set of images: what is made looks real, and all that is real can be made."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.metrics._feature_metric import SetsMetric
from smalti.metrics._jackknife import Groups, check_groups, shares_of
from smalti.metrics._neighbours import inside, one_if_finite, radii


def precision_recall(real: Tensor, made: Tensor, *, k: int = 3) -> tuple[Tensor, Tensor]:
    """Shares of made features near real ones and of real near made ones, two scalars in float64 (arXiv:1904.06991).

    Near is what lies in a ball around any feature of the other set that reaches to its k-th neighbour there, itself not
    counted; the border belongs to it.

    Args:
        real: with shape (N, d).
        made: with shape (M, d).
        k: which neighbour; at most the last.

    Example:
        >>> import torch
        >>> real, made = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.5], [0.6], [0.7]])
        >>> precision_recall(real, made, k=1)
        (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    precise, recalled = near(real, made, k=k)
    return precise.mean(), recalled.mean()


def near(real: Tensor, made: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """1 of each made feature near a real one, and of each real near a made one, else 0: float64 (M,) and (N,)."""
    precise, _ = inside(made, real, radii(real, k))
    recalled, _ = inside(real, made, radii(made, k))
    known = one_if_finite(real, made)
    return known * (precise > 0).double(), known * (recalled > 0).double()


class PrecisionRecall(SetsMetric):
    """Improved precision and recall of images (B, C, H, W) in Inception-v3's features (Kynkaanniemi, arXiv:1904.06991).

    ``precision_recall_precision`` is the share of made images that are as near to a real one as its k-th neighbour is,
    ``precision_recall_recall`` that of real images near made ones. Both depend on the number of images. With another
    network they are called after that.

    Args:
        extractor: the network; None for :class:`smalti.extractors.inception_v3.InceptionV3`, pretrained.
        k: which neighbour.
        groups: of images, left out in turn for ``_low`` and ``_high``, where the value lies with 95 %; 0:
            neither. The balls stay those of all images.
    """

    higher_is_better = True

    def __init__(
        self,
        extractor: Extractor | None = None,
        k: Annotated[int, Field(ge=1, le=10_000)] = 3,
        groups: Groups = 0,
    ) -> None:
        super().__init__(extractor, "precision_recall")
        self.groups = check_groups(groups)
        if k < 1:
            raise ValueError(f"k={k}: expected at least 1")
        self.k = k

    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """Both shares, of features with shape (N, d)."""
        shares = near(real, made, k=self.k)
        return shares_of([f"{self.name}_precision", f"{self.name}_recall"], shares, self.groups, most=1.0)
