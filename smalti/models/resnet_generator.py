"""Residual generators of SNGAN and BigGAN: what a class, or a part of the noise, says goes into the normalisation."""

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from smalti.models._generator import Generator, truncated
from smalti.nn.memory_format import like
from smalti.nn.sizes import Count, Positive, power_of_two

Conditioning = Literal["class", "class_and_noise"]


class ConditionalBatchNorm(nn.Module):
    """BatchNorm whose gain and bias come from a vector (Dumoulin et al., arXiv:1610.07629).

    Args:
        channels: of the maps.
        width: of the vector; 0: gain and bias are learned numbers.
        spectral: bound the two linear layers.
    """

    def __init__(self, channels: int, width: int, spectral: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=width == 0)
        self.gain = _bounded(nn.Linear(width, channels, bias=False), spectral) if width else None
        self.bias = _bounded(nn.Linear(width, channels, bias=False), spectral) if width else None

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Maps with the shape (B, channels, H, W) of ``x``, for vectors (B, width)."""
        y: Tensor = self.norm(x)
        if self.gain is None or self.bias is None:
            return y
        vector = vector.to(y.dtype)
        gain, bias = (1.0 + self.gain(vector))[:, :, None, None], self.bias(vector)[:, :, None, None]
        return torch.addcmul(bias, y, gain)


class UpBlock(nn.Module):
    """Residual block that doubles the size: (B, in, H, W) -> (B, out, 2 H, 2 W).

    Args:
        in_channels: of its input.
        out_channels: of its output.
        width: of the vectors that condition it.
        spectral: bound its convolutions.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, spectral: bool) -> None:
        super().__init__()
        self.first_norm = ConditionalBatchNorm(in_channels, width, spectral)
        self.first = _bounded(nn.Conv2d(in_channels, out_channels, 3, padding=1), spectral)
        self.second_norm = ConditionalBatchNorm(out_channels, width, spectral)
        self.second = _bounded(nn.Conv2d(out_channels, out_channels, 3, padding=1), spectral)
        self.skip = _bounded(nn.Conv2d(in_channels, out_channels, 1), spectral)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Maps with shape (B, out, 2 H, 2 W), for vectors (B, width)."""
        y = F.interpolate(F.relu(self.first_norm(x, vector)), scale_factor=2, mode="nearest")
        y = self.second(F.relu(self.second_norm(self.first(y), vector)))
        made: Tensor = y + self.skip(F.interpolate(x, scale_factor=2, mode="nearest"))
        return made


class ResnetGenerator(Generator):
    """Residual: noise (B, latent_size) and labels (B,) -> images (B, C, H, H) (Miyato et al., arXiv:1802.05957).

    A linear layer to 4 x 4, then blocks that double the size, at full width up to 32 pixels and half as wide after each
    doubling beyond. ``class`` conditions every normalisation by a learned gain and bias per class, as SNGAN does;
    ``class_and_noise`` by a class embedding beside a piece of the noise for each block, as BigGAN (arXiv:1809.11096).

    Args:
        image_size: H, a power of two.
        image_channels: C.
        latent_size: width of the noise; with ``class_and_noise`` divisible by the number of blocks + 1.
        channels: width of the blocks.
        num_classes: number of classes; 0: none.
        conditioning: ``class`` or ``class_and_noise``.
        embedding_size: width of the class embedding, of ``class_and_noise``.
        spectral_norm: bound every layer's gain by 1, as BigGAN does in the generator, too.

    Example:
        >>> generator = ResnetGenerator(image_size=16, latent_size=6, channels=4, num_classes=2)
        >>> generator.sample(torch.zeros(2, 6), torch.tensor([0, 1])).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(
        self,
        *,
        image_size: Positive = 32,
        image_channels: Positive = 3,
        latent_size: Positive = 128,
        channels: Positive = 256,
        num_classes: Count = 0,
        conditioning: Conditioning = "class",
        embedding_size: Positive = 128,
        spectral_norm: bool = False,
    ) -> None:
        super().__init__()
        blocks = power_of_two(image_size, 8) - 2
        self.image_size = (image_size, image_size)
        self.image_channels = image_channels
        self.latent_size = latent_size
        self.num_classes = num_classes
        self.pieces = blocks + 1 if conditioning == "class_and_noise" else 1
        if latent_size % self.pieces:
            raise ValueError(
                f"latent_size={latent_size!r}: expected a multiple of {self.pieces}, the number of blocks + 1"
            )
        piece = latent_size // self.pieces
        self.embedding = nn.Embedding(num_classes, embedding_size) if num_classes and self.pieces > 1 else None
        width = num_classes if self.pieces == 1 else piece + (embedding_size if self.embedding is not None else 0)
        widths = [max(1, channels // 2 ** max(0, i - 3)) for i in range(blocks + 1)]
        self.start = _bounded(nn.Linear(piece, 16 * widths[0]), spectral_norm)
        self.blocks = nn.ModuleList(UpBlock(before, after, width, spectral_norm) for before, after in pairwise(widths))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.out = _bounded(nn.Conv2d(widths[-1], image_channels, 3, padding=1), spectral_norm)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution, with shape (C, channels, 3, 3), before it is bounded."""
        return next(p for name, p in self.out.named_parameters() if "weight" in name)

    def latents(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """The noise itself, with shape (B, latent_size), scaled by ``truncation``."""
        return truncated(noise, truncation)

    def synthesize(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images with shape (B, C, H, H) in [-1, 1] from latents (B, latent_size) and labels (B,)."""
        pieces = latents.chunk(self.pieces, dim=1)
        x = self.start(pieces[0])
        x = like(x.reshape(len(x), -1, 4, 4), self.last_layer)
        for number, block in enumerate(self.blocks):
            x = block(x, self._vector(pieces[number + 1] if self.pieces > 1 else None, latents, labels))
        images: Tensor = torch.tanh(self.out(F.relu(self.norm(x))))
        return images

    def _vector(self, piece: Tensor | None, latents: Tensor, labels: Tensor | None) -> Tensor:
        """What conditions a block, with shape (B, width)."""
        if piece is not None:
            known = [self.embedding(labels).to(piece.dtype)] if self.embedding is not None else []
            return torch.cat([*known, piece], dim=1)
        if labels is None:
            return latents[:, :0]
        return F.one_hot(labels, self.num_classes).to(latents.dtype)


def _bounded(layer: nn.Module, spectral: bool) -> nn.Module:
    return spectral_norm(layer) if spectral else layer
