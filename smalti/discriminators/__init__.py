"""Discriminators: networks that tell real images from made ones."""

from abc import abstractmethod

from torch import Tensor, nn

from smalti.outputs import DiscriminatorOutput
from smalti.registry import Part


class Discriminator(Part, nn.Module):
    """Base of all discriminators and critics."""

    kind = "discriminator"
    package = "smalti.discriminators"

    @abstractmethod
    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, C, H, W) in [-1, 1], given a ``condition`` image if it takes one."""
