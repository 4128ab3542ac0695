"""A vision transformer of random weights in plain torch: what stands in for a teacher where transformers is missing."""

import torch
from torch import Tensor, nn

from smalti.extractors import Extractor
from smalti.extractors._preprocessing import prepare


class PlainViT(Extractor):
    """The class token of a vision transformer (Dosovitskiy et al., arXiv:2010.11929) with random weights.

    Args:
        width: channels of a token.
        layers: transformer layers.
        patch: side of a patch.
        size: side of the square that images are resized to.
    """

    def __init__(self, *, width: int = 768, layers: int = 12, patch: int = 16, size: int = 224) -> None:
        super().__init__()
        self.size = size
        self.patches = nn.Conv2d(3, width, patch, stride=patch)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(0.02 * torch.randn(1, 1 + (size // patch) ** 2, width))
        heads = max(width // 64, 1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.requires_grad_(False)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One feature with shape (B, width) of images with shape (B, 3, H, W) in [-1, 1]."""
        tokens = self.patches(prepare(images, self.size, "nearest")).flatten(2).mT
        tokens = torch.cat([self.first.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        tokens = tokens + self.places.to(tokens.dtype)
        for layer in self.layers:
            tokens = layer(tokens)
        return (tokens[:, 0],)
