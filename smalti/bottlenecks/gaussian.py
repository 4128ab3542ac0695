"""The KL bottleneck: a diagonal Gaussian over latents."""

from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.nn.precision import at_least_float32, full_precision
from smalti.outputs import BottleneckOutput, DiagonalGaussian


class Gaussian(Bottleneck):
    """A 1x1 convolution to mean and log-variance; the latent is a sample or the mode (arXiv:1312.6114, 2112.10752).

    The moments are computed in at least float32: a variance of exp(20) overflows float16.

    Args:
        in_channels: width of the features.
        latent_channels: width of the latent.
        sample: when the latent is a sample and not the mode: in ``training`` mode, ``always`` or ``never``.
        projection: whether the 1x1 convolution is there; without it ``in_channels`` is ``2 * latent_channels``.
    """

    provides = frozenset({"posterior"})

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)],
        latent_channels: Annotated[int, Field(ge=1)],
        sample: Literal["training", "always", "never"] = "training",
        projection: bool = True,
    ) -> None:
        super().__init__()
        if sample not in {"training", "always", "never"}:
            raise ValueError(f"sample={sample!r}: expected 'training', 'always' or 'never'")
        if not projection and in_channels != 2 * latent_channels:
            raise ValueError(
                f"projection=False: expected in_channels={in_channels} equal to 2 * latent_channels={latent_channels}"
            )
        self.in_channels = in_channels
        self.latent_channels = latent_channels
        self.sample = sample
        self.projection = nn.Conv2d(in_channels, 2 * latent_channels, 1) if projection else None

    def forward(self, features: Tensor, noise: Tensor | None = None) -> BottleneckOutput:
        """Maps features (B, in_channels, h, w) to a latent and its posterior, both (B, latent_channels, h, w).

        ``noise``, standard normal in the shape of the latent, is drawn if it is needed and not given.
        """
        with full_precision():
            if self.projection is not None:
                features = self.projection(features.to(self.projection.weight.dtype))
            moments = at_least_float32(features)
            posterior = DiagonalGaussian.from_moments(moments)
            if self.sample == "always" or (self.sample == "training" and self.training):
                latent = posterior.sample(None if noise is None else noise.to(moments))
            else:
                latent = posterior.mode()
        return BottleneckOutput(latent=latent, posterior=posterior)
