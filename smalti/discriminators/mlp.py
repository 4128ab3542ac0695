"""A critic without a convolution: it sees the pixels of a small image as one vector."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from smalti.discriminators import Augmentation, Discriminator
from smalti.discriminators._input import check_images, check_labels
from smalti.nn.sizes import Count, Positive, Size, height_and_width
from smalti.outputs import DiscriminatorOutput


class MLP(Discriminator):
    """Fully connected critic, images (B, C, H, W) -> logits (B, 1), of PyTorch-GAN's WGAN (arXiv:1701.07875).

    Linear layers of ``widths`` with LeakyReLU 0.2, then one to a single number; nothing bounds it.

    Args:
        image_size: side of the images, or height and width.
        in_channels: image channels.
        widths: of the hidden layers.
        num_classes: classes whose embedding is put beside the pixels; labels (B,) are then the condition. 0: none.
        embedding_size: width of that embedding.
        augment: what is done to images before they are judged; in training mode only.

    Example:
        >>> critic = MLP(image_size=8, in_channels=1, widths=[16])
        >>> critic(torch.zeros(2, 1, 8, 8)).logits.shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        *,
        image_size: Size = 32,
        in_channels: Positive = 3,
        widths: Sequence[Positive] = (512, 256),
        num_classes: Count = 0,
        embedding_size: Positive = 32,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(augment)
        self.image_size = height_and_width(image_size)
        self.smallest_size = min(self.image_size)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.classes = nn.Embedding(num_classes, embedding_size) if num_classes else None
        inner = [in_channels * prod(self.image_size) + (embedding_size if num_classes else 0), *widths]
        stages: list[nn.Module] = []
        for before, after in pairwise(inner):
            stages += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.main = nn.Sequential(*stages, nn.Linear(inner[-1], 1))

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, in_channels, H, W) in [-1, 1]; ``condition`` are labels (B,).

        Raises:
            ValueError: for images or a condition that do not fit.
        """
        check_images(images, self.in_channels, exactly=self.image_size)
        check_labels(images, condition, self.num_classes)
        images, _ = self.augmented(images, None)
        x = images.flatten(1)
        if self.classes is not None and condition is not None:
            x = torch.cat([x, self.classes(condition).to(x.dtype)], dim=1)
        features: list[Tensor] = []
        for stage in self.main:
            x = stage(x)
            if isinstance(stage, nn.LeakyReLU):
                features.append(x[:, :, None, None])
        return DiscriminatorOutput(logits=x, features=tuple(features))
