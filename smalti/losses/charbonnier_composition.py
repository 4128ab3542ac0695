"""Charbonnier of compositions, for matting: the predicted opacity is judged by the image that it puts together."""

from typing import Annotated

from pydantic import Field
from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._composition import CompositionLoss, composite
from smalti.losses._reduction import Weighting
from smalti.losses.charbonnier import charbonnier


def charbonnier_composition(
    alpha: Tensor,
    foreground: Tensor,
    background: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    eps: float = 1e-12,
    reduction: Reduction = "mean",
    weighting: Weighting = "weighted_mean",
    per_sample: bool = False,
) -> Tensor:
    """l = sqrt((x - target)^2 + eps) with the composition x = alpha foreground + (1 - alpha) background, reduced.

    Args:
        alpha: predicted opacity with shape (B, 1, H, W), in [0, 1].
        foreground: with shape (B, C, H, W).
        background: same shape.
        target: the image that the composition should be, same shape.
        weight: (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W).
        eps: the loss is quadratic below sqrt(eps), > 0, in squared units of the images.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights or by the elements, see :func:`smalti.losses._reduction.reduce`.
        per_sample: average each sample first, then over samples.

    Raises:
        ValueError: for shapes that do not belong together, an unknown option value, or a weight that does not fit.

    Example:
        >>> import torch
        >>> black, white = torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2)
        >>> charbonnier_composition(torch.full((1, 1, 2, 2), 1.0), white, black, target=white, eps=9.0)
        tensor(3.)
    """
    image = composite(alpha, foreground, background)
    return charbonnier(image, target, weight, eps=eps, reduction=reduction, weighting=weighting, per_sample=per_sample)


class CharbonnierComposition(CompositionLoss):
    """Charbonnier composition = mean sqrt((x - target)^2 + eps) over (B, C, H, W).

    x = alpha foreground + (1 - alpha) background (Xu et al., Deep Image Matting, arXiv:1703.03872.)

    Args:
        eps: the loss is quadratic below sqrt(eps), in squared units of the images.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    def __init__(
        self,
        *,
        eps: Annotated[float, Field(gt=0.0)] = 1e-12,
        reduction: Reduction = "mean",
        weighting: Weighting = "weighted_mean",
        per_sample: bool = False,
    ) -> None:
        super().__init__(reduction=reduction, weighting=weighting, per_sample=per_sample)
        if eps <= 0.0:
            raise ValueError(f"eps={eps}: expected > 0")
        self.eps = eps

    def unreduced(self, image: Tensor, target: Tensor) -> Tensor:
        """sqrt((x - target)^2 + eps) with shape (B, C, H, W)."""
        return charbonnier(image, target, eps=self.eps, reduction="none")
