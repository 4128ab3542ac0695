"""Discriminators: networks that tell real images from made ones."""

from abc import abstractmethod

from torch import Tensor, nn

from smalti.outputs import DiscriminatorOutput
from smalti.registry import Part


class Discriminator(Part, nn.Module):
    """Base of all discriminators and critics.

    ``condition_channels`` is the width of the condition image it is given beside each image, 0 for none;
    ``smallest_size`` the least height and width it can judge.
    """

    kind = "discriminator"
    package = "smalti.discriminators"
    condition_channels: int = 0
    smallest_size: int = 1

    @abstractmethod
    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, C, H, W) in [-1, 1], given a ``condition`` image if it takes one."""
