"""Residual critics of SNGAN, BigGAN and R3GAN's kind: any size, classes by projection."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm as bounded

from smalti.discriminators import Augmentation, Discriminator
from smalti.discriminators._input import check_images, check_labels
from smalti.nn.memory_format import like
from smalti.nn.sizes import Count, Halvings, LayersOrNone, Positive
from smalti.outputs import DiscriminatorOutput


class DownBlock(nn.Module):
    """Pre-activated residual block: (B, in, H, W) -> (B, out, H, W), or half the size.

    Args:
        in_channels: of its input.
        out_channels: of its output.
        spectral: bound its convolutions.
        down: halve the size.
        first: it sees an image, which no ReLU may cut.
    """

    def __init__(self, in_channels: int, out_channels: int, *, spectral: bool, down: bool, first: bool = False) -> None:
        super().__init__()
        self.conv1 = _bounded(nn.Conv2d(in_channels, out_channels, 3, padding=1), spectral)
        self.conv2 = _bounded(nn.Conv2d(out_channels, out_channels, 3, padding=1), spectral)
        changes = down or in_channels != out_channels
        self.skip = _bounded(nn.Conv2d(in_channels, out_channels, 1), spectral) if changes else nn.Identity()
        self.down, self.first = down, first

    def forward(self, x: Tensor) -> Tensor:
        """Maps with shape (B, out, h, w), of ``x`` with shape (B, in, H, W)."""
        y = self.conv2(F.relu(self.conv1(x if self.first else F.relu(x))))
        skip = like(self.skip(x), y)  # of a grey image a 1 x 1 convolution cannot tell the memory format
        return F.avg_pool2d(y + skip, 2) if self.down else y + skip


class Residual(Discriminator):
    """Residual critic, images (B, C, H, W) -> logits (B, 1), with projection (Miyato & Koyama, arXiv:1802.05637).

    ``down`` blocks halve the size, ``flat`` ones do not; ReLU, the sum over pixels, one number, and for classes the
    product with their embedding. Spectral normalisation (arXiv:1802.05957) bounds every layer, by one power iteration.

    Args:
        in_channels: image channels.
        channels: width of the blocks; with ``widen`` of the first.
        down: number of blocks that halve the size.
        flat: number of blocks after them.
        widen: double the width with every block that halves the size.
        spectral_norm: bound every layer's gain by 1.
        num_classes: classes, given as labels (B,) in the condition; 0: none.
        augment: what is done to images before they are judged; in training mode only.

    Example:
        >>> import torch
        >>> Residual(channels=4, num_classes=3)(torch.zeros(2, 3, 8, 8), torch.tensor([0, 2])).logits.shape
        torch.Size([2, 1])
    """

    def __init__(
        self,
        *,
        in_channels: Positive = 3,
        channels: Positive = 128,
        down: Halvings = 2,
        flat: LayersOrNone = 2,
        widen: bool = False,
        spectral_norm: bool = True,
        num_classes: Count = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(augment)
        self.in_channels = in_channels
        self.smallest_size = 2**down
        self.num_classes = num_classes
        widths = [in_channels, *(channels * (2**i if widen else 1) for i in range(down))]
        widths += [widths[-1]] * flat
        self.blocks = nn.ModuleList(
            DownBlock(before, after, spectral=spectral_norm, down=number < down, first=number == 0)
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.linear = _bounded(nn.Linear(widths[-1], 1), spectral_norm)
        self.classes = _bounded(nn.Embedding(num_classes, widths[-1]), spectral_norm) if num_classes else None

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, in_channels, H, W) in [-1, 1]; ``condition`` are labels (B,).

        Raises:
            ValueError: for images or a condition that do not fit.
        """
        check_images(images, self.in_channels, smallest=self.smallest_size)
        check_labels(images, condition, self.num_classes)
        x, _ = self.augmented(images, None)
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        x = F.relu(x).sum(dim=(2, 3))
        logits = self.linear(x)
        if self.classes is not None and condition is not None:
            logits = logits + (self.classes(condition).to(x.dtype) * x).sum(dim=1, keepdim=True)
        return DiscriminatorOutput(logits=logits, features=tuple(features))


def _bounded(layer: nn.Module, spectral: bool) -> nn.Module:
    return bounded(layer) if spectral else layer
