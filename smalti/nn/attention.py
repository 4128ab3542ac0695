"""Self-attention over the positions of an image."""

from torch import Tensor, nn
from torch.nn import functional as F

from smalti.nn.blocks import DecoderNorm, norm
from smalti.nn.spatial_norm import SpatialNorm


class SpatialAttention(nn.Module):
    """x + out(softmax(q k^T / sqrt(C)) v) over all positions, one head (Wang et al., arXiv:1711.07971).

    Args:
        channels: width C of input and output.
        kind: normalisation in front of the projections: ``group``, ``batch``, ``none`` or ``spatial``.
        groups: number of groups.
        latent_channels: of the latent that ``spatial`` is told.
    """

    def __init__(self, channels: int, kind: DecoderNorm = "group", groups: int = 32, latent_channels: int = 0) -> None:
        super().__init__()
        self.norm = norm(kind, channels, groups, latent_channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, latent: Tensor | None = None) -> Tensor:
        """Maps (B, channels, H, W) to the same shape; ``spatial`` needs the latent (B, C', h, w)."""
        y = self.norm(x, latent) if isinstance(self.norm, SpatialNorm) else self.norm(x)
        # Contiguous in the channel axis: a transposed view silently takes the path that stores the attention matrix.
        q, k, v = (part(y).flatten(2).transpose(1, 2).contiguous().unsqueeze(1) for part in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        output: Tensor = x + self.out(attended.transpose(1, 2).reshape(x.shape))
        return output
