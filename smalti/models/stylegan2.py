"""StyleGAN2: a mapping network, and a synthesis network whose convolutions it modulates."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.models._generator import Generator
from smalti.models._style import Mapping, ModulatedConv, StyledLayer
from smalti.nn.distributed import all_reduce_mean
from smalti.nn.equalized import EqualizedConv
from smalti.nn.resampling import Upsample
from smalti.nn.sizes import Count, Layers, Positive, power_of_two
from smalti.outputs import GeneratorOutput

Share = Annotated[float, Field(ge=0.0, le=1.0)]
AVERAGE_DECAY = 0.998


class SynthesisBlock(nn.Module):
    """Two styled layers, the first of which doubles the size; the very first block has one, and starts from a constant.

    Args:
        in_channels: of its input; 0 for the first block.
        out_channels: of its output.
        width: of w.
        size: side of its output.
        image_channels: of the image it adds to; 0 if it adds to none.
        residual: whether a 1 x 1 convolution goes round it.
    """

    def __init__(
        self, in_channels: int, out_channels: int, width: int, size: int, image_channels: int, residual: bool
    ) -> None:
        super().__init__()
        self.constant = None if in_channels else nn.Parameter(torch.randn(1, out_channels, size, size))
        first = [StyledLayer(in_channels, out_channels, width, size, upsample=True)] if in_channels else []
        self.layers = nn.ModuleList([*first, StyledLayer(out_channels, out_channels, width, size)])
        self.upsample = Upsample()
        self.skip = EqualizedConv(in_channels, out_channels, 1, bias=False) if residual and in_channels else None
        self.to_image = (
            ModulatedConv(out_channels, image_channels, 1, width, demodulate=False) if image_channels else None
        )
        self.image_bias = nn.Parameter(torch.zeros(image_channels)) if image_channels else None

    def forward(self, x: Tensor | None, image: Tensor | None, ws: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Maps and image after the block, for its part of the latents: each of ``ws`` has shape (B, width)."""
        y = self.constant.expand(len(ws[0]), -1, -1, -1) if x is None and self.constant is not None else x
        if y is None:
            raise ValueError("a block after the first needs maps")
        for layer, w in zip(self.layers, ws, strict=False):
            y = layer(y, w)
        if self.skip is not None and x is not None:
            y = (y + self.skip(self.upsample(x))) * 0.5**0.5
        if self.to_image is None or self.image_bias is None:
            return y, image
        shown = self.to_image(y, ws[len(self.layers)]) + self.image_bias[:, None, None]
        return y, shown if image is None else self.upsample(image) + shown


class StyleGAN2(Generator):
    """StyleGAN2, noise (B, latent_size) -> w (B, L, width) -> images (B, C, H, H) (Karras et al., arXiv:1912.04958).

    The latents that a path length regulariser looks at are w: ``{type: path_length, weight: 2, every: 4, shrink: 2}``
    needs no ``inputs``. The mean of w, which truncation pulls towards (below 1), moves after each generator update.

    Args:
        image_size: H, a power of two.
        image_channels: C.
        latent_size: width of the noise z.
        width: of w.
        mapping_layers: linear layers between z and w.
        channel_base: a map of side s has channel_base / s channels,
        max_channels: but no more than this.
        output: ``skip`` adds up an image over all sizes, ``residual`` makes one at the end and puts 1 x 1 convolutions
            round the blocks.
        style_mixing: probability that an image takes its finer layers from a second noise, in training.
        num_classes: classes that the mapping network is told, by embedding; 0: none.

    Example:
        >>> generator = StyleGAN2(image_size=8, latent_size=4, width=6, channel_base=32, max_channels=8)
        >>> generator.eval().sample(torch.zeros(2, 4), truncation=0.7).shape
        torch.Size([2, 3, 8, 8])
    """

    mean_w: Tensor

    def __init__(
        self,
        *,
        image_size: Positive = 256,
        image_channels: Positive = 3,
        latent_size: Positive = 512,
        width: Positive = 512,
        mapping_layers: Layers = 8,
        channel_base: Positive = 32768,
        max_channels: Positive = 512,
        output: Literal["skip", "residual"] = "skip",
        style_mixing: Share = 0.9,
        num_classes: Count = 0,
    ) -> None:
        super().__init__()
        doublings = power_of_two(image_size) - 2
        self.image_size = (image_size, image_size)
        self.image_channels = image_channels
        self.latent_size = latent_size
        self.num_classes = num_classes
        self.style_mixing = style_mixing
        self.mapping = Mapping(latent_size, width, mapping_layers, num_classes)
        channels = [0, *(min(max_channels, max(1, channel_base // (4 * 2**i))) for i in range(doublings + 1))]
        residual = output == "residual"
        self.blocks = nn.ModuleList(
            SynthesisBlock(
                channels[i],
                channels[i + 1],
                width,
                4 * 2**i,
                0 if residual and i < doublings else image_channels,
                residual,
            )
            for i in range(doublings + 1)
        )
        self.num_layers = 2 * doublings + 2  # one style a layer; the last one makes the image
        self.register_buffer("mean_w", torch.zeros(width))

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last modulated convolution, with shape (C, channels, 1, 1)."""
        weight: nn.Parameter = self.blocks[-1].to_image.weight  # type: ignore[union-attr, assignment]
        return weight

    def latents(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """w for every layer (B, L, width): mixed from two noises in training, pulled to the mean by ``truncation``."""
        w: Tensor = self.mapping(noise, labels)[:, None].expand(-1, self.num_layers, -1)
        if self.training and self.style_mixing:
            w = self._mixed(w, labels)
        mean = self.mean_w.to(w.dtype)
        return w if truncation == 1.0 else mean + truncation * (w - mean)

    def _mixed(self, w: Tensor, labels: Tensor | None) -> Tensor:
        """w (B, L, width) with the layers from a random one on taken from a second noise, for some images."""
        count, device = len(w), w.device
        noise = torch.randn(count, self.latent_size, dtype=w.dtype, device=device)
        second = self.mapping(noise, labels)[:, None]
        start = torch.randint(1, self.num_layers, (count,), device=device)
        start = torch.where(torch.rand(count, device=device) < self.style_mixing, start, self.num_layers)
        is_second = torch.arange(self.num_layers, device=device) >= start[:, None]
        return torch.where(is_second[:, :, None], second, w)

    def synthesize(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images with shape (B, C, H, H), not bounded by a tanh, from w with shape (B, L, width)."""
        x: Tensor | None = None
        image: Tensor | None = None
        ws = latents.unbind(dim=1)
        start = 0
        for number, block in enumerate(self.blocks):  # a block's image and the next one's first layer share a style
            x, image = block(x, image, ws[start:])
            start += 2 if number else 1
        if image is None:
            raise ValueError("no block makes an image")
        return image

    def update(self, outputs: Sequence[GeneratorOutput]) -> None:
        """Moves the mean of w towards that of all micro-batches' latents (B, L, width), over all ranks."""
        latents = torch.cat([output.latents for output in outputs])
        mean = all_reduce_mean(latents.to(self.mean_w.dtype).mean(dim=(0, 1)))
        self.mean_w.lerp_(mean, 1.0 - AVERAGE_DECAY)
