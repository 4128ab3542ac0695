"""DCGAN's generator: transposed convolutions that double the size from 4 x 4."""

from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from smalti.models._generator import ClassEmbedding, Generator, truncated
from smalti.nn.sizes import Count, Positive, power_of_two


class DCGAN(Generator):
    """Noise (B, latent_size) -> images (B, C, H, H) by transposed convolutions (Radford et al., arXiv:1511.06434).

    A 4 x 4 map of ``channels`` times H / 8 channels, then 4 x 4 convolutions of stride 2 that double the size and halve
    the channels, each normalised and with ReLU; the last one has tanh. Weights start as N(0, 0.02), gains as
    N(1, 0.02).

    Args:
        image_size: H, a power of two.
        image_channels: C.
        latent_size: width of the noise.
        channels: width of the last hidden map; it is 64 in the paper.
        norm: ``batch`` or ``none``.
        num_classes: classes whose embedding is put beside the noise; 0: none.
        embedding_size: width of that embedding.

    Example:
        >>> import torch
        >>> DCGAN(image_size=16, latent_size=8, channels=4).sample(torch.zeros(2, 8)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        *,
        image_size: Positive = 64,
        image_channels: Positive = 3,
        latent_size: Positive = 100,
        channels: Positive = 64,
        norm: Literal["batch", "none"] = "batch",
        num_classes: Count = 0,
        embedding_size: Positive = 32,
    ) -> None:
        super().__init__()
        doublings = power_of_two(image_size, 8) - 2
        self.image_size = (image_size, image_size)
        self.image_channels = image_channels
        self.latent_size = latent_size
        self.num_classes = num_classes
        self.classes = ClassEmbedding(num_classes, embedding_size)
        widths = [channels * 2**i for i in reversed(range(doublings))]
        stages: list[nn.Module] = [_transposed(latent_size + self.classes.width, widths[0], 1, 0, norm == "none")]
        stages += _normalised(widths[0], norm)
        for before, after in pairwise(widths):
            stages += [_transposed(before, after, 2, 1, norm == "none"), *_normalised(after, norm)]
        stages += [_transposed(widths[-1], image_channels, 2, 1, bias=True), nn.Tanh()]
        self.main = nn.Sequential(*stages)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution, with shape (channels, C, 4, 4)."""
        weight: nn.Parameter = self.main[-2].weight  # type: ignore[assignment]
        return weight

    def latents(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """The noise itself, with shape (B, latent_size), scaled by ``truncation``."""
        return truncated(noise, truncation)

    def synthesize(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images with shape (B, C, H, H) in [-1, 1] from latents (B, latent_size) and labels (B,)."""
        images: Tensor = self.main(self.classes(latents, labels)[:, :, None, None])
        return images


def _transposed(in_channels: int, out_channels: int, stride: int, padding: int, bias: bool) -> nn.ConvTranspose2d:
    convolution = nn.ConvTranspose2d(in_channels, out_channels, 4, stride, padding, bias=bias)
    nn.init.normal_(convolution.weight, 0.0, 0.02)
    return convolution


def _normalised(channels: int, norm: str) -> list[nn.Module]:
    if norm == "none":
        return [nn.ReLU()]
    layer = nn.BatchNorm2d(channels)
    nn.init.normal_(layer.weight, 1.0, 0.02)
    return [layer, nn.ReLU()]
