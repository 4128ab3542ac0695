"""Discriminators: networks that tell real images from made ones."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from smalti.discriminators._augmentation import Augmentation
from smalti.outputs import DiscriminatorOutput
from smalti.registry import Part

__all__ = ["Augmentation", "Discriminator"]


class Discriminator(Part, nn.Module):
    """Base of all discriminators and critics.

    ``condition_channels`` is the width of the condition image it is given beside each image, 0 for none;
    ``smallest_size`` the least height and width it can judge.

    Args:
        augment: what is done to every image before it is judged, in training mode only; None: nothing.
    """

    kind = "discriminator"
    package = "smalti.discriminators"
    stand_ins = (nn.Module,)
    condition_channels: int = 0
    smallest_size: int = 1

    def __init__(self, augment: Augmentation | None = None) -> None:
        super().__init__()
        self.augment = augment

    def augmented(self, images: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is to be judged in place of ``images`` and ``condition``, (B, C, H, W) each."""
        if self.augment is None or not self.training:
            return images, condition
        images, condition = self.augment(images, condition)
        return images, condition

    def update(self, records: Sequence[DiscriminatorOutput]) -> None:
        """Sees the detached logits of real images after each step; an adaptive augmentation follows them."""
        if self.augment is not None:
            self.augment.update(records)

    @abstractmethod
    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, C, H, W) in [-1, 1], given a ``condition`` image if it takes one."""
