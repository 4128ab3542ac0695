"""Convolutional blocks that latent-diffusion, taming-transformers, LlamaGen and FQGAN share."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from smalti.nn.group_norm import group_norm, norm_silu
from smalti.nn.norm_act_conv import norm_act_conv
from smalti.nn.spatial_norm import SpatialNorm

NormKind = Literal["group", "batch", "none"]
DecoderNorm = Literal["group", "batch", "none", "spatial"]
Resampling = Literal["conv", "pool"]
Recompute = Literal["nothing", "activations", "blocks"]


def norm(kind: DecoderNorm, channels: int, groups: int = 32, latent_channels: int = 0) -> nn.Module:
    """A normalisation of (B, channels, H, W): GroupNorm (Wu & He, arXiv:1803.08494) with eps 1e-6, BatchNorm or none.

    ``spatial`` is a :class:`SpatialNorm`, which is told a latent (B, latent_channels, h, w) too.

    Raises:
        ValueError: if ``kind`` is unknown or ``groups`` does not divide ``channels``.
    """
    if kind == "spatial" and latent_channels:
        return SpatialNorm(channels, latent_channels, groups)
    if kind == "group":
        if channels % groups:
            raise ValueError(f"groups={groups}: expected a divisor of every width, and one width is {channels}")
        return GroupNorm(groups, channels, eps=1e-6)
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "none":
        return nn.Identity()
    raise ValueError(f"norm={kind!r}: expected 'group', 'batch' or 'none', or in a decoder 'spatial'")


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm that takes one value per group too: a single image that is one pixel here, as it takes two."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to the same shape."""
        return group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class ResBlock(nn.Module):
    """x -> shortcut(x) + conv(dropout(silu(norm(conv(silu(norm(x))))))) (He et al., arXiv:1603.05027).

    Args:
        in_channels: width of the input.
        out_channels: width of the output; another width than the input's makes the shortcut a 1x1 convolution.
        kind: ``group``, ``batch``, ``none`` or ``spatial``: which normalisation.
        groups: number of groups.
        dropout: probability of a zero in front of the second convolution.
        recompute: what the backward pass makes again instead of keeping it: ``activations`` (what is between two
            convolutions: a third of the memory at equal gradients and about equal time) or ``blocks`` (all between
            input and output: less memory still, a forward pass more).
        latent_channels: of the latent that ``spatial`` is told.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kind: DecoderNorm = "group",
        groups: int = 32,
        dropout: float = 0.0,
        recompute: Recompute = "nothing",
        latent_channels: int = 0,
    ) -> None:
        super().__init__()
        check_recompute(recompute, kind)
        self.recompute = recompute
        self.norm1 = norm(kind, in_channels, groups, latent_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.norm2 = norm(kind, out_channels, groups, latent_channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.shortcut = nn.Identity() if in_channels == out_channels else nn.Conv2d(in_channels, out_channels, 1)

    @property
    def forbids_graphs(self) -> str | None:
        """Why its passes cannot be recorded, or None."""
        return "recompute='blocks' reads the state of random numbers" if self.recompute == "blocks" else None

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W); ``spatial`` needs the latent (B, C', h, w)."""
        if self.recompute == "blocks" and torch.is_grad_enabled():
            output: Tensor = checkpoint(self._compute, x, latent, use_reentrant=False)
            return output
        return self._compute(x, latent)

    def _compute(self, x: Tensor, latent: Tensor | None) -> Tensor:
        h = activate(x, self.norm1, self.conv1, self.recompute, latent)
        if self.training and self.dropout.p > 0.0:
            h = self.conv2(self.dropout(_normalised(h, self.norm2, latent)))
        else:
            h = activate(h, self.norm2, self.conv2, self.recompute, latent)
        output: Tensor = self.shortcut(x) + h
        return output


def activate(
    x: Tensor, norm: nn.Module, conv: nn.Conv2d, recompute: Recompute = "nothing", latent: Tensor | None = None
) -> Tensor:
    """conv(silu(norm(x))) of x (B, C, H, W); with ``activations`` and a GroupNorm it keeps only x.

    A :class:`SpatialNorm` is told the latent (B, C', h, w).
    """
    if recompute == "activations" and isinstance(norm, nn.GroupNorm):
        return norm_act_conv(x, norm, conv)
    output: Tensor = conv(_normalised(x, norm, latent))
    return output


def _normalised(x: Tensor, norm: nn.Module, latent: Tensor | None) -> Tensor:
    return F.silu(norm(x, latent)) if isinstance(norm, SpatialNorm) else norm_silu(x, norm)


def check_recompute(recompute: str, kind: str) -> None:
    """Refuses unknown values, and to recompute batch statistics, which a second pass would move twice.

    Raises:
        ValueError: in both cases.
    """
    if recompute not in {"nothing", "activations", "blocks"}:
        raise ValueError(f"recompute={recompute!r}: expected 'nothing', 'activations' or 'blocks'")
    if recompute != "nothing" and kind == "batch":
        raise ValueError(f"recompute={recompute!r}: expected norm='group' or 'none', batch statistics would move twice")
    if recompute == "activations" and kind == "spatial":
        raise ValueError("recompute='activations': norm='spatial' keeps them; expected 'nothing' or 'blocks'")


class Downsample(nn.Module):
    """Halves height and width: a strided convolution padded right and bottom only, or a 2x2 average.

    Args:
        channels: width of input and output.
        by: ``conv`` or ``pool``.
    """

    def __init__(self, channels: int, by: Resampling = "conv") -> None:
        super().__init__()
        if by not in {"conv", "pool"}:
            raise ValueError(f"resample={by!r}: expected 'conv' or 'pool'")
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if by == "conv" else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels, H, W) to (B, channels, H // 2, W // 2)."""
        if self.conv is None:
            return F.avg_pool2d(x, 2)
        output: Tensor = self.conv(F.pad(x, (0, 1, 0, 1)))
        return output


class Upsample(nn.Module):
    """Doubles height and width by repetition, with a convolution after it or without.

    Args:
        channels: width of input and output.
        by: ``conv`` or ``pool`` (plain repetition, the mirror of average pooling).
    """

    def __init__(self, channels: int, by: Resampling = "conv") -> None:
        super().__init__()
        if by not in {"conv", "pool"}:
            raise ValueError(f"resample={by!r}: expected 'conv' or 'pool'")
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if by == "conv" else None

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, channels, H, W) to (B, channels, 2 H, 2 W)."""
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return x if self.conv is None else self.conv(x)
