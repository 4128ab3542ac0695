"""Composition: an image put together from a foreground over a background, by a predicted opacity."""

from abc import abstractmethod

from torch import Tensor

from smalti.losses._weighted import WeightedLoss


def composite(alpha: Tensor, foreground: Tensor, background: Tensor) -> Tensor:
    """alpha foreground + (1 - alpha) background, with shape (B, C, H, W).

    Args:
        alpha: opacity with shape (B, 1, H, W), in [0, 1].
        foreground: with shape (B, C, H, W).
        background: same shape.

    Raises:
        ValueError: for shapes that do not belong together; silent broadcasting hides mistakes.
    """
    batch, _, height, width = foreground.shape
    if background.shape != foreground.shape:
        raise ValueError(
            f"foreground has shape {tuple(foreground.shape)}, background {tuple(background.shape)}: must be equal"
        )
    if alpha.shape != (batch, 1, height, width):
        raise ValueError(f"alpha has shape {tuple(alpha.shape)}: expected {(batch, 1, height, width)}")
    return alpha * foreground + (1.0 - alpha) * background


class CompositionLoss(WeightedLoss):
    """Base of the losses that compare a composition with the image it should be.

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
        per_sample: average each sample first, then over samples.
    """

    @abstractmethod
    def unreduced(self, image: Tensor, target: Tensor) -> Tensor:
        """Values with shape (B, C, H, W), one per element of the composed image."""

    def forward(
        self, alpha: Tensor, foreground: Tensor, background: Tensor, target: Tensor, weight: Tensor | None = None
    ) -> Tensor:
        """The loss of the opacity ``alpha`` with shape (B, 1, H, W) in [0, 1]; the images have shape (B, C, H, W).

        ``weight`` is (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W).
        """
        return self.reduced(self.unreduced(composite(alpha, foreground, background), target), weight)
