"""A generator without a convolution: for small images, and for looking at how GANs train."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Literal

from torch import Tensor, nn

from smalti.models._generator import ClassEmbedding, Generator, truncated
from smalti.nn.sizes import Count, Positive, Size, height_and_width


class MLPGenerator(Generator):
    """Fully connected: noise (B, latent_size) -> images (B, C, H, W); PyTorch-GAN's for WGAN (arXiv:1701.07875).

    Linear layers of ``widths``, LeakyReLU 0.2, a last one to C H W values and tanh. With ``batch`` every layer but the
    first is normalised, with PyTorch-GAN's eps 0.8: there ``BatchNorm1d(n, 0.8)`` was meant to set the momentum.

    Args:
        image_size: side of the images, or height and width.
        image_channels: C.
        latent_size: width of the noise.
        widths: of the hidden layers.
        norm: ``batch`` or ``none``.
        num_classes: classes whose embedding is put beside the noise; 0: none.
        embedding_size: width of that embedding.

    Example:
        >>> import torch
        >>> generator = MLPGenerator(image_size=8, image_channels=1, latent_size=4, widths=[16], norm="none")
        >>> generator.sample(torch.zeros(2, 4)).shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(
        self,
        *,
        image_size: Size = 32,
        image_channels: Positive = 3,
        latent_size: Positive = 100,
        widths: Sequence[Positive] = (128, 256, 512, 1024),
        norm: Literal["batch", "none"] = "batch",
        num_classes: Count = 0,
        embedding_size: Positive = 32,
    ) -> None:
        super().__init__()
        self.image_size = height_and_width(image_size)
        self.image_channels = image_channels
        self.latent_size = latent_size
        self.num_classes = num_classes
        self.classes = ClassEmbedding(num_classes, embedding_size)
        inner = [latent_size + self.classes.width, *widths]
        stages: list[nn.Module] = []
        for number, (before, after) in enumerate(pairwise(inner)):
            stages.append(nn.Linear(before, after))
            if norm == "batch" and number > 0:
                stages.append(nn.BatchNorm1d(after, eps=0.8))
            stages.append(nn.LeakyReLU(0.2))
        self.main = nn.Sequential(*stages, nn.Linear(inner[-1], image_channels * prod(self.image_size)), nn.Tanh())

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last linear layer, with shape (C H W, width)."""
        weight: nn.Parameter = self.main[-2].weight  # type: ignore[assignment]
        return weight

    def latents(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """The noise itself, with shape (B, latent_size), scaled by ``truncation``."""
        return truncated(noise, truncation)

    def synthesize(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images with shape (B, C, H, W) in [-1, 1] from latents (B, latent_size) and labels (B,)."""
        made: Tensor = self.main(self.classes(latents, labels))
        return made.reshape(-1, self.image_channels, *self.image_size)
