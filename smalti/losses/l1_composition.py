"""L1 of compositions, for matting: the predicted opacity is judged by the image that it puts together."""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._composition import CompositionLoss, composite
from smalti.losses._reduction import Weighting
from smalti.losses.l1 import l1


def l1_composition(
    alpha: Tensor,
    foreground: Tensor,
    background: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = |x - target| with the composition x = alpha foreground + (1 - alpha) background, reduced.

    Args:
        alpha: predicted opacity with shape (B, 1, H, W), in [0, 1].
        foreground: with shape (B, C, H, W).
        background: same shape.
        target: the image that the composition should be, same shape.
        weight: (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W).
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for shapes that do not belong together, an unknown option value, or a weight that does not fit.

    Example:
        >>> import torch
        >>> black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> l1_composition(torch.full((1, 1, 2, 2), 0.25), white, black, target=white)
        tensor(0.7500)
    """
    image = composite(alpha, foreground, background)
    return l1(image, target, weight, reduction=reduction, weighting=weighting, per_sample=per_sample)


class L1Composition(CompositionLoss):
    """L1 composition = mean |x - target|, x = alpha foreground + (1 - alpha) background (B, C, H, W).

    (Xu et al., Deep Image Matting, arXiv:1703.03872.)

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    def unreduced(self, image: Tensor, target: Tensor) -> Tensor:
        """|x - target| with shape (B, C, H, W)."""
        return l1(image, target, reduction="none")
