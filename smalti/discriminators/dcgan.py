"""DCGAN's critic: convolutions that halve the size down to 4 x 4, then one number."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm as bounded

from smalti.discriminators import Augmentation, Discriminator
from smalti.discriminators._input import check_images, check_labels
from smalti.nn.sizes import Count, Positive, power_of_two
from smalti.outputs import DiscriminatorOutput

Norm = Literal["batch", "group", "none"]


class DCGAN(Discriminator):
    """Convolutions of stride 2, images (B, C, H, H) -> logits (B, 1) (Radford et al., arXiv:1511.06434).

    4 x 4 convolutions halve the size and double the width down to 4 x 4 pixels, then one more gives a number; LeakyReLU
    0.2 between them. ``batch`` is the paper's; a gradient penalty needs ``group`` (one group, as MMagic's WGAN-GP) or
    ``none``. Weights start as N(0, 0.02).

    Args:
        image_size: H, a power of two.
        in_channels: image channels.
        channels: width of the first layer.
        norm: ``batch``, ``group`` or ``none``; the first layer has none.
        spectral_norm: bound every layer's gain by 1.
        num_classes: classes whose embedding is put beside the image as one more channel; labels (B,) are then the
            condition. 0: none.
        augment: what is done to images before they are judged; in training mode only.

    Example:
        >>> DCGAN(image_size=16, channels=4)(torch.zeros(2, 3, 16, 16)).logits.shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        *,
        image_size: Positive = 32,
        in_channels: Positive = 3,
        channels: Positive = 64,
        norm: Norm = "batch",
        spectral_norm: bool = False,
        num_classes: Count = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(augment)
        halvings = power_of_two(image_size, 8) - 2
        self.image_size = (image_size, image_size)
        self.smallest_size = image_size
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.classes = nn.Embedding(num_classes, image_size**2) if num_classes else None
        widths = [in_channels + (1 if num_classes else 0), *(channels * 2**i for i in range(halvings))]
        stages: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(widths)):
            kind = norm if number else "none"
            stages += [_convolution(before, after, 2, 1, kind != "batch", spectral_norm)]
            stages += [*_normalisation(kind, after), nn.LeakyReLU(0.2)]
        stages += [_convolution(widths[-1], 1, 1, 0, True, spectral_norm)]
        self.main = nn.Sequential(*stages)

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, in_channels, H, H) in [-1, 1]; ``condition`` are labels (B,).

        Raises:
            ValueError: for images or a condition that do not fit.
        """
        check_images(images, self.in_channels, exactly=self.image_size)
        check_labels(images, condition, self.num_classes)
        x, _ = self.augmented(images, None)
        if self.classes is not None and condition is not None:
            plane = self.classes(condition).to(x.dtype).reshape(-1, 1, *self.image_size)
            x = torch.cat([x, plane], dim=1)
        features: list[Tensor] = []
        for stage in self.main:
            x = stage(x)
            if isinstance(stage, nn.LeakyReLU):
                features.append(x)
        return DiscriminatorOutput(logits=x.flatten(1), features=tuple(features))


def _convolution(before: int, after: int, stride: int, padding: int, bias: bool, spectral: bool) -> nn.Module:
    convolution = nn.Conv2d(before, after, 4, stride, padding, bias=bias)
    nn.init.normal_(convolution.weight, 0.0, 0.02)
    return bounded(convolution) if spectral else convolution


def _normalisation(norm: Norm, channels: int) -> list[nn.Module]:
    if norm == "batch":
        layer = nn.BatchNorm2d(channels)
        nn.init.normal_(layer.weight, 1.0, 0.02)
        return [layer]
    return [nn.GroupNorm(1, channels)] if norm == "group" else []
