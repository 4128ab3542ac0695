"""PatchGAN: a small convolutional network that judges overlapping patches, one logit each."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.discriminators import Augmentation, Discriminator
from smalti.discriminators._actnorm import ActNorm
from smalti.nn.sizes import Halvings
from smalti.outputs import DiscriminatorOutput

Norm = Literal["batch", "actnorm", "none"]


class Patch(Discriminator):
    """PatchGAN discriminator (Isola et al., arXiv:1611.07004), as in taming, latent-diffusion and FQGAN.

    ``layers`` convolutions of stride 2 and two of stride 1, all 4x4 with padding 1: images (B, C, H, W) give logits
    (B, 1, h, w) with h = floor(H / 2^layers) - 2, each seeing 70 x 70 pixels for 3 layers. Weights start as
    N(0, 0.02), normalisation gains as N(1, 0.02).

    ``batch`` normalises real and generated images with the statistics of their own batch, on each process by itself.
    Its running statistics also move when the generator is trained. ``none`` keeps the numbering of the keys
    ``main.{i}`` and drops the normalisation. ``actnorm`` is set by the first batch it meets in training.

    Args:
        in_channels: image channels.
        channels: width of the first layer; it doubles up to 8 times that.
        layers: number of layers that halve the size.
        norm: ``batch``, ``actnorm`` or ``none``.
        condition_channels: channels of a condition image (B, condition_channels, H, W) that is put beside the image.
        augment: what is done to images, and conditions alike, before they are judged; in training mode only.

    Example:
        >>> discriminator = Patch(channels=8, layers=3)
        >>> discriminator(torch.zeros(2, 3, 64, 64)).logits.shape
        torch.Size([2, 1, 6, 6])
    """

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)] = 3,
        channels: Annotated[int, Field(ge=1)] = 64,
        layers: Halvings = 3,
        norm: Norm = "batch",
        condition_channels: Annotated[int, Field(ge=0)] = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(augment)
        self.in_channels = in_channels
        self.condition_channels = condition_channels
        self.smallest_size = 3 * 2**layers
        widths = [channels * min(2**i, 8) for i in range(layers + 1)]
        stages: list[nn.Module] = [_convolution(in_channels + condition_channels, widths[0], stride=2), _activation()]
        for i in range(1, layers + 1):
            stride = 2 if i < layers else 1
            # BatchNorm subtracts the mean at once, so a bias before it would do nothing.
            stages += [_convolution(widths[i - 1], widths[i], stride=stride, bias=norm != "batch")]
            stages += [_normalisation(norm, widths[i]), _activation()]
        stages += [_convolution(widths[-1], 1, stride=1)]
        self.main = nn.Sequential(*stages)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, in_channels, H, W) in [-1, 1], H and W at least 3 * 2^layers.

        ``condition`` has shape (B, condition_channels, H, W) and is required exactly if there are such channels.

        Raises:
            ValueError: for images that are too small or of other channels, and for a condition that does not fit.
        """
        self._check(images, condition)
        images, condition = self.augmented(images, condition)
        x = images if condition is None else torch.cat([images, condition], dim=1)
        features: list[Tensor] = []
        for stage in self.main:
            x = stage(x)
            if isinstance(stage, nn.LeakyReLU):
                features.append(x)
        return DiscriminatorOutput(logits=x, features=tuple(features))

    def _check(self, images: Tensor, condition: Tensor | None) -> None:
        if images.ndim != 4 or images.shape[1] != self.in_channels:
            raise ValueError(f"images have shape {tuple(images.shape)}: expected (B, {self.in_channels}, H, W)")
        if min(images.shape[2:]) < self.smallest_size:
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels: this discriminator needs at least "
                f"{self.smallest_size} x {self.smallest_size}; fewer layers need less"
            )
        if condition is None:
            if self.condition_channels:
                raise ValueError(f"condition is missing: condition_channels={self.condition_channels}")
            return
        expected = (images.shape[0], self.condition_channels, *images.shape[2:])
        if not self.condition_channels:
            raise ValueError("a condition was given: this discriminator has condition_channels=0")
        if tuple(condition.shape) != expected:
            raise ValueError(f"condition has shape {tuple(condition.shape)}: expected {expected}")


def _convolution(in_channels: int, out_channels: int, *, stride: int, bias: bool = True) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, kernel_size=4, stride=stride, padding=1, bias=bias)
    nn.init.normal_(convolution.weight, 0.0, 0.02)
    return convolution


def _activation() -> nn.LeakyReLU:
    return nn.LeakyReLU(0.2)


def _normalisation(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        layer = nn.BatchNorm2d(channels)
        nn.init.normal_(layer.weight, 1.0, 0.02)
        return layer
    if norm == "actnorm":
        return ActNorm(channels)
    if norm == "none":
        return nn.Identity()
    raise ValueError(f"norm={norm!r}: expected 'batch', 'actnorm' or 'none'")
