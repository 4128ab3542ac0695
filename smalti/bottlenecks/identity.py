"""No bottleneck but the width: a plain autoencoder."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.outputs import BottleneckOutput


class Identity(Bottleneck):
    """Passes features on, through a 1x1 convolution if the width changes (Hinton & Salakhutdinov, Science 2006).

    Args:
        in_channels: width of the features.
        latent_channels: width of the latent, made by a 1x1 convolution; None: the features are the latent.
    """

    def __init__(
        self, *, in_channels: Annotated[int, Field(ge=1)], latent_channels: Annotated[int, Field(ge=1)] | None = None
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.latent_channels = latent_channels or in_channels
        self.projection = nn.Identity() if latent_channels is None else nn.Conv2d(in_channels, latent_channels, 1)

    def forward(self, features: Tensor, noise: Tensor | None = None) -> BottleneckOutput:
        """Maps features (B, in_channels, h, w) to a latent (B, latent_channels, h, w)."""
        return BottleneckOutput(latent=self.projection(features))
