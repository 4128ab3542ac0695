"""Convolutional encoder and decoder: one implementation of the layout that latent-diffusion (Rombach et al.,
arXiv:2112.10752), taming-transformers (Esser et al., arXiv:2012.09841), LlamaGen (Sun et al., arXiv:2406.06525) and
FQGAN (Bai et al., arXiv:2411.16681) share.

A level is a resolution; level 0 is the finest. Between two levels the resolution halves, so the factor of an encoder is
``patch_size * 2 ** (levels - 1)``. ``patch_size`` > 1 moves pixels into channels before the first convolution, which is
cheap where full-resolution convolutions are not: on a CPU.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.models import Decoder, Encoder
from smalti.nn.attention import SpatialAttention
from smalti.nn.blocks import (
    DecoderNorm,
    Downsample,
    NormKind,
    Recompute,
    Resampling,
    ResBlock,
    Upsample,
    activate,
    norm,
)
from smalti.nn.sizes import Layers, LayersOrNone

Positive = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]


class ConvEncoder(Encoder):
    """Residual convolutions on shrinking resolutions, then a middle of residual blocks with attention between them.

    Args:
        image_channels: channels of the images.
        channels: base width.
        multipliers: width of each level in units of ``channels``, finest first; not cumulative.
        blocks: residual blocks per level.
        attention_levels: levels with attention after each of their blocks.
        middle_blocks: residual blocks after the last level.
        middle_attention: whether attention follows the first of them.
        norm: ``group``, ``batch`` or ``none``; a shallow network without statistics reconstructs colours best.
        groups: number of groups; divides every width.
        dropout: probability of a zero inside residual blocks.
        resample: halve by strided ``conv`` or by average ``pool``.
        patch_size: side of the squares of pixels that become channels at the entrance; 1 is the originals' layout.
        recompute: what the backward pass makes again instead of keeping it: ``nothing``, the ``activations`` between
            convolutions (a third of the memory, equal gradients, about equal time) or whole residual ``blocks``.
        out_channels: width after norm, activation and a last convolution; None ends at the middle, in the width of the
            last level.
    """

    def __init__(
        self,
        *,
        image_channels: Positive = 3,
        channels: Positive = 128,
        multipliers: Sequence[Positive] = (1, 1, 2, 2, 4),
        blocks: Layers = 2,
        attention_levels: Sequence[Annotated[int, Field(ge=0)]] = (),
        middle_blocks: LayersOrNone = 2,
        middle_attention: bool = True,
        norm: NormKind = "group",
        groups: Positive = 32,
        dropout: Fraction = 0.0,
        resample: Resampling = "conv",
        patch_size: Positive = 1,
        recompute: Recompute = "nothing",
        out_channels: Positive | None = 256,
    ) -> None:
        super().__init__()
        widths = _widths(channels, multipliers, attention_levels)
        _check_sizes(image_channels=image_channels, blocks=blocks, patch_size=patch_size, groups=groups)
        self.image_channels = image_channels
        self.patch_size = patch_size
        self.factor = patch_size * 2 ** (len(widths) - 1)
        self.conv_in = nn.Conv2d(image_channels * patch_size**2, channels, 3, padding=1)
        self.levels = nn.ModuleList()
        width = channels
        style = _Style(norm, groups, dropout, recompute)
        for level, level_width in enumerate(widths):
            down = Downsample(level_width, resample) if level < len(widths) - 1 else None
            self.levels.append(_Level(width, level_width, blocks, level in attention_levels, style, down))
            width = level_width
        self.middle = _Middle(width, middle_blocks, middle_attention, style)
        self.head = None if out_channels is None else _Head(width, out_channels, style)
        self.out_channels = out_channels or width

    def forward(self, images: Tensor) -> Tensor:
        """Maps (B, image_channels, H, W) to (B, out_channels, H / factor, W / factor)."""
        x = images.to(self.conv_in.weight.dtype)
        if self.patch_size > 1:
            x = F.pixel_unshuffle(x, self.patch_size)
        x = self.conv_in(x)
        for level in self.levels:
            x = level(x)
        x = self.middle(x)
        output: Tensor = x if self.head is None else self.head(x)
        return output


class ConvDecoder(Decoder):
    """The encoder's mirror, with one residual block more per level.

    Args:
        image_channels: channels of the images.
        latent_channels: width of what it takes.
        z_channels: width after its 1x1 convolution out of the latent space; None: no such convolution.
        channels: base width.
        multipliers: width of each level in units of ``channels``, finest first, as for the encoder.
        blocks: residual blocks per level of the encoder; the decoder has one more.
        attention_levels: levels with attention after each of their blocks, counted from the finest as for the encoder.
        middle_blocks: residual blocks in front of the first level.
        middle_attention: whether attention follows the first of them.
        norm: ``group``, ``batch`` or ``none``; a shallow network without statistics reconstructs colours best. Or
            ``spatial``: GroupNorm whose gain and bias at each position are made of the latent (MoVQ).
        groups: number of groups; divides every width.
        dropout: probability of a zero inside residual blocks.
        resample: double by repetition and ``conv``, or by repetition alone (``pool``).
        patch_size: side of the squares of pixels made from channels at the exit.
        recompute: what the backward pass makes again instead of keeping it: ``nothing``, the ``activations`` between
            convolutions (a third of the memory, equal gradients, about equal time) or whole residual ``blocks``.
    """

    def __init__(
        self,
        *,
        latent_channels: Positive,
        z_channels: Positive | None = 256,
        image_channels: Positive = 3,
        channels: Positive = 128,
        multipliers: Sequence[Positive] = (1, 1, 2, 2, 4),
        blocks: Layers = 2,
        attention_levels: Sequence[Annotated[int, Field(ge=0)]] = (),
        middle_blocks: LayersOrNone = 2,
        middle_attention: bool = True,
        norm: DecoderNorm = "group",
        groups: Positive = 32,
        dropout: Fraction = 0.0,
        resample: Resampling = "conv",
        patch_size: Positive = 1,
        recompute: Recompute = "nothing",
    ) -> None:
        super().__init__()
        widths = _widths(channels, multipliers, attention_levels)
        _check_sizes(
            image_channels=image_channels, blocks=blocks, patch_size=patch_size, latent_channels=latent_channels
        )
        self.image_channels = image_channels
        self.latent_channels = latent_channels
        self.patch_size = patch_size
        self.factor = patch_size * 2 ** (len(widths) - 1)
        self.projection = nn.Identity() if z_channels is None else nn.Conv2d(latent_channels, z_channels, 1)
        self.conv_in = nn.Conv2d(z_channels or latent_channels, widths[-1], 3, padding=1)
        style = _Style(norm, groups, dropout, recompute, latent_channels if norm == "spatial" else 0)
        self.middle = _Middle(widths[-1], middle_blocks, middle_attention, style)
        self.levels = nn.ModuleList()
        width = widths[-1]
        for level, level_width in reversed(list(enumerate(widths))):
            up = Upsample(level_width, resample) if level > 0 else None
            self.levels.append(_Level(width, level_width, blocks + 1, level in attention_levels, style, up))
            width = level_width
        self.head = _Head(width, image_channels * patch_size**2, style)

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution, with shape (image_channels * patch_size ** 2, width, 3, 3)."""
        weight: nn.Parameter = self.head.conv.weight  # type: ignore[assignment]
        return weight

    def forward(self, latent: Tensor) -> Tensor:
        """Maps (B, latent_channels, h, w) to (B, image_channels, h * factor, w * factor)."""
        latent = latent.to(self.conv_in.weight.dtype)
        x = self.middle(self.conv_in(self.projection(latent)), latent)
        for level in self.levels:
            x = level(x, latent)
        x = self.head(x, latent)
        return F.pixel_shuffle(x, self.patch_size) if self.patch_size > 1 else x


class _Style(NamedTuple):
    """How all blocks of a network are made; ``latent_channels`` are those of what ``spatial`` norms are told."""

    norm: DecoderNorm
    groups: int
    dropout: float
    recompute: Recompute
    latent_channels: int = 0

    def block(self, in_channels: int, out_channels: int) -> ResBlock:
        """A residual block."""
        return ResBlock(in_channels, out_channels, *self)

    def attention(self, channels: int) -> SpatialAttention:
        """Attention over positions."""
        return SpatialAttention(channels, self.norm, self.groups, self.latent_channels)


class _Level(nn.Module):
    """Residual blocks of one resolution, each followed by attention if wanted, then the step to the next one."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        blocks: int,
        attention: bool,
        style: _Style,
        resample: nn.Module | None,
    ) -> None:
        super().__init__()
        inputs = [in_channels] + [out_channels] * (blocks - 1)
        self.blocks = nn.ModuleList(style.block(width, out_channels) for width in inputs)
        self.attentions = nn.ModuleList(style.attention(out_channels) if attention else nn.Identity() for _ in inputs)
        self.resample = nn.Identity() if resample is None else resample

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W), or to half or double that size."""
        for block, attention in zip(self.blocks, self.attentions, strict=True):
            x = block(x, latent)
            if isinstance(attention, SpatialAttention):
                x = attention(x, latent)
        output: Tensor = self.resample(x)
        return output


class _Head(nn.Module):
    """Norm, activation and the last 3x3 convolution."""

    def __init__(self, in_channels: int, out_channels: int, style: _Style) -> None:
        super().__init__()
        self.recompute = style.recompute
        self.norm = norm(style.norm, in_channels, style.groups, style.latent_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return activate(x, self.norm, self.conv, self.recompute, latent)


class _Middle(nn.Sequential):
    """Residual blocks of the coarsest resolution, with attention behind the first if wanted."""

    def __init__(self, width: int, blocks: int, attention: bool, style: _Style) -> None:
        if attention and blocks == 0:
            raise ValueError("middle_attention=True: expected middle_blocks of at least 1, attention follows the first")
        parts: list[nn.Module] = [style.block(width, width) for _ in range(blocks)]
        if attention:
            parts.insert(1, style.attention(width))
        super().__init__(*parts)

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Maps (B, width, h, w) to the same shape."""
        for part in self:
            x = part(x, latent)
        return x


def _widths(channels: int, multipliers: Sequence[int], attention_levels: Sequence[int]) -> list[int]:
    """Width of each level; checks what concerns several options."""
    _check_sizes(channels=channels, **{f"multipliers[{i}]": value for i, value in enumerate(multipliers)})
    if not multipliers:
        raise ValueError("multipliers=[]: expected one width multiplier per level, at least one level")
    outside = [level for level in attention_levels if not 0 <= level < len(multipliers)]
    if outside:
        raise ValueError(
            f"attention_levels={list(attention_levels)}: expected levels from 0 (the finest) to {len(multipliers) - 1}"
        )
    return [channels * multiplier for multiplier in multipliers]


def _check_sizes(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}={size}: expected a positive whole number")
