"""Inception score: whether single made images are of one class, and all together of many."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._inception import Layer
from smalti.metrics._feature_metric import SetsMetric
from smalti.metrics._features import Side
from smalti.metrics._jackknife import Groups, check_groups, ends, left_out


def inception_score(logits: Tensor, *, splits: int = 10, seed: int | None = 0) -> tuple[Tensor, Tensor]:
    """exp of the mean over images of KL(p(y|x) || mean p), its mean and deviation over parts of the images, in float64.

    Args:
        logits: with shape (N, K).
        splits: parts, of almost equal size; at most N.
        seed: of the shuffle before; None: they stay in order.

    Returns:
        Two scalars: the mean, and the deviation over ``splits`` (population).

    Example:
        >>> score, _ = inception_score(torch.eye(4) * 100.0, splits=1)
        >>> score
        tensor(4., dtype=torch.float64)
    """
    if seed is not None:
        logits = logits[torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))]
    count = min(splits, len(logits))
    ends = [part * len(logits) // count for part in range(count + 1)]
    found = torch.stack([_score(logits[start:end]) for start, end in pairwise(ends)])
    return found.mean(), found.std(correction=0)


class InceptionScore(SetsMetric):
    """Inception score of the made images (B, C, H, W) alone (Salimans et al., arXiv:1606.03498), larger is better.

    Of the 1008 logits of Inception-v3 without their bias. ``inception_score_deviation`` is over the splits. It says
    nothing of whether a reconstruction resembles its image. With another network, whose last feature are taken as
    logits, it is called after that.

    Args:
        extractor: the network; None for :class:`smalti.extractors.inception_v3.InceptionV3`, pretrained.
        splits: parts that the shuffled images are cut into.
        seed: of the shuffle.
        groups: of images, left out in turn for ``_low`` and ``_high``, where the value lies with 95 %; 0: neither.
    """

    higher_is_better = True
    layers: ClassVar[tuple[Layer, ...]] = ("logits_unbiased",)
    sides: ClassVar[tuple[Side, ...]] = ("made",)

    def __init__(
        self,
        extractor: Extractor | None = None,
        splits: Annotated[int, Field(ge=1, le=100_000)] = 10,
        seed: Annotated[int, Field(ge=0)] = 0,
        groups: Groups = 0,
    ) -> None:
        super().__init__(extractor, "inception_score")
        self.groups = check_groups(groups)
        if splits < 1:
            raise ValueError(f"splits={splits}: expected at least 1")
        self.splits = splits
        self.seed = seed

    def summarize(self, real: Tensor, made: Tensor) -> Mapping[str, Tensor]:
        """Score and deviation, of logits with shape (N, K)."""
        score, deviation = inception_score(made, splits=self.splits, seed=self.seed)
        without = left_out(
            len(made), self.groups, lambda rows: inception_score(made[rows], splits=self.splits, seed=self.seed)[0]
        )
        return {self.name: score, f"{self.name}_deviation": deviation, **ends(self.name, score, without, least=1.0)}


def _score(logits: Tensor) -> Tensor:
    logs = logits.double().log_softmax(dim=1)
    shares = logs.exp()
    overall = shares.mean(dim=0, keepdim=True)
    divergences: Tensor = (torch.special.xlogy(shares, shares) - torch.special.xlogy(shares, overall)).sum(dim=1)
    return divergences.mean().exp()
