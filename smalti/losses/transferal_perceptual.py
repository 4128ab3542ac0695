"""Transferal perceptual loss: features of the result should be the textures taken over from a reference."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._features import Criterion, mean_difference
from smalti.losses._reduction import Weighting, check_choice, check_same_shape, reduce
from smalti.losses._weighted import WeightedLoss


def transferal_perceptual(
    maps: Sequence[Tensor],
    textures: Sequence[Tensor],
    attention: Tensor | None = None,
    weight: Tensor | None = None,
    *,
    criterion: Criterion = "mse",
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = sum_i mean (a_i maps_i - a_i textures_i)^2, or of the absolute value, one per sample.

    a_i = sigmoid(attention, resized bicubically to the i-th map), or 1. MMagic's loss takes the sigmoid of the first
    level alone and the raw, unbounded attention of the others.

    Args:
        maps: features of the result, each with shape (B, C_i, H_i, W_i).
        textures: those of the reference, moved to where they belong, of the same shapes.
        attention: how well they belong there, before the sigmoid, with shape (B, 1, H, W).
        weight: (B,) or (B, 1, 1, 1).
        criterion: ``mse`` or ``l1``.
        reduction: ``none`` gives shape (B, 1, 1, 1); ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, which happens anyway.

    Raises:
        ValueError: for another number of textures than of maps, unequal shapes, an unknown option value, or a weight
            that does not fit.

    Example:
        >>> ones, zeros = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2)
        >>> transferal_perceptual([ones], [zeros]), transferal_perceptual([ones], [zeros], zeros[:, :1])
        (tensor(1.), tensor(0.2500))
    """
    if not maps or len(maps) != len(textures):
        raise ValueError(f"{len(maps)} maps and {len(textures)} textures: expected as many, at least one of both")
    total = torch.zeros(1, 1, 1, 1, device=maps[0].device)
    for map_, texture in zip(maps, textures, strict=True):
        check_same_shape(map_, texture)
        share = 1.0 if attention is None else _share(attention, map_)
        total = total + mean_difference(share * map_, share * texture, criterion)
    return reduce(total, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class TransferalPerceptual(WeightedLoss):
    """Transferal perceptual loss = sum_i mean (a_i maps_i - a_i textures_i)^2 (Yang et al., arXiv:2006.04139).

    For maps and textures with shape (B, C_i, H_i, W_i), one value per sample.

    Args:
        criterion: ``mse`` or ``l1``.
        reduction: ``none`` (shape (B, 1, 1, 1)), ``mean``, ``sum`` or ``batch_sum``.
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    def __init__(
        self,
        *,
        criterion: Criterion = "mse",
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        check_choice("criterion", criterion, Criterion)
        self.criterion: Criterion = criterion

    def forward(
        self,
        maps: Sequence[Tensor],
        textures: Sequence[Tensor],
        attention: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The distance of maps and textures, each (B, C_i, H_i, W_i), under ``attention`` (B, 1, H, W)."""
        values = transferal_perceptual(maps, textures, attention, criterion=self.criterion, reduction="none")
        return self.reduced(values, weight)


def _share(attention: Tensor, like: Tensor) -> Tensor:
    if attention.ndim != 4 or attention.shape[:2] != (like.shape[0], 1):
        raise ValueError(f"attention has shape {tuple(attention.shape)}: expected ({like.shape[0]}, 1, H, W)")
    size = like.shape[-2:]
    if attention.shape[-2:] != size:
        attention = F.interpolate(attention, size=tuple(size), mode="bicubic", align_corners=False)
    return torch.sigmoid(attention)
