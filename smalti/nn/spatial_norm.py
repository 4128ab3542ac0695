"""Spatially conditional normalisation: what is removed at a position is put back as a latent there says (MoVQ).

    y = scale(z) GroupNorm(x) + shift(z)

with 1x1 convolutions ``scale`` and ``shift`` of a latent z that is repeated to the size of x (Zheng et al.,
arXiv:2209.09002).
"""

from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.group_norm import group_norm


class SpatialNorm(nn.Module):
    """GroupNorm whose gain and bias at each position are made of a latent (Zheng et al., arXiv:2209.09002).

    Args:
        channels: of the input.
        latent_channels: of the latent.
        groups: of GroupNorm, whose eps is 1e-6.

    Raises:
        ValueError: if ``groups`` does not divide ``channels``.
    """

    def __init__(self, channels: int, latent_channels: int, groups: int = 32) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(f"groups={groups}: expected a divisor of every width, and one width is {channels}")
        self.group = nn.GroupNorm(groups, channels, eps=1e-6)
        self.scale = nn.Conv2d(latent_channels, channels, 1)
        self.shift = nn.Conv2d(latent_channels, channels, 1)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        """Maps x (B, channels, H, W) to the same shape; ``latent`` has shape (B, latent_channels, h, w).

        Example:
            >>> import torch
            >>> SpatialNorm(4, 2, groups=2)(torch.randn(1, 4, 6, 6), torch.randn(1, 2, 3, 3)).shape
            torch.Size([1, 4, 6, 6])
        """
        y = group_norm(x, self.group.num_groups, self.group.weight, self.group.bias, self.group.eps)
        # 1x1 convolutions and repetition commute: here on the small map, and the same numbers.
        scale, shift = (F.interpolate(part(latent), size=x.shape[-2:]) for part in (self.scale, self.shift))
        return y * scale + shift
