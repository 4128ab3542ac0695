"""StyleGAN2's discriminator: residual blocks with filtered strides, and a look at how varied the batch is."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from smalti.discriminators import Augmentation, Discriminator
from smalti.discriminators._input import check_images, check_labels
from smalti.nn.equalized import EqualizedConv, EqualizedLinear
from smalti.nn.memory_format import format_of, like
from smalti.nn.resampling import Blur
from smalti.nn.sizes import Count, Positive, power_of_two
from smalti.outputs import DiscriminatorOutput


class Block(nn.Module):
    """Half the size: (B, in, H, H) -> (B, out, H / 2, H / 2).

    Args:
        in_channels: of its input.
        out_channels: of its output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv(in_channels, in_channels, 3, padding=1, activate=True)
        self.conv2 = nn.Sequential(
            Blur(padding=(2, 2)), EqualizedConv(in_channels, out_channels, 3, stride=2, activate=True)
        )
        self.skip = nn.Sequential(
            Blur(padding=(1, 1)), EqualizedConv(in_channels, out_channels, 1, stride=2, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps with shape (B, out, H / 2, H / 2), of ``x`` with shape (B, in, H, H)."""
        y: Tensor = (self.conv2(self.conv1(x)) + self.skip(x)) * 0.5**0.5
        return y


class MinibatchDeviation(nn.Module):
    """One more channel: how much the images of a group differ (Karras et al., arXiv:1710.10196).

    (B, C, h, w) -> (B, C + 1, h, w). A batch that the groups do not divide is one group. In evaluation each image is
    judged by itself, with the mean deviation seen in training.

    Args:
        group: images in a group.
    """

    batch_statistics: ClassVar[str] = "how much the images of a group differ"
    typical: Tensor

    def __init__(self, group: int) -> None:
        super().__init__()
        self.group = group
        self.register_buffer("typical", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """``x`` with shape (B, C, h, w) and the deviation, with shape (B, C + 1, h, w)."""
        count = len(x)
        if not self.training:
            return self._beside(x, self.typical.to(x.dtype).expand(count))
        group = self.group if count % self.group == 0 else count
        grouped = x.reshape(group, -1, *x.shape[1:])
        deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        with torch.no_grad():
            self.typical.lerp_(deviation.mean().to(self.typical.dtype), 0.01)
        return self._beside(x, deviation.repeat(group))

    def _beside(self, x: Tensor, values: Tensor) -> Tensor:
        """``x`` with shape (B, C, h, w) and a channel of one value (B,) for each image, in the memory format of x."""
        plane = values[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return torch.cat([x, plane.contiguous(memory_format=format_of(x))], dim=1)


class StyleGAN2(Discriminator):
    """StyleGAN2's residual discriminator, images (B, C, H, H) -> logits (B, 1) (Karras et al., arXiv:1912.04958).

    Args:
        image_size: H, a power of two.
        in_channels: image channels.
        channel_base: a map of side s has channel_base / s channels,
        max_channels: but no more than this.
        minibatch_group: images that are compared with each other; 0: none are.
        num_classes: classes, given as labels (B,) in the condition and judged by projection; 0: none.
        augment: what is done to images before they are judged; in training mode only.

    Example:
        >>> StyleGAN2(image_size=16, channel_base=64, max_channels=8)(torch.zeros(4, 3, 16, 16)).logits.shape
        torch.Size([4, 1])
    """

    def __init__(
        self,
        *,
        image_size: Positive = 32,
        in_channels: Positive = 3,
        channel_base: Positive = 32768,
        max_channels: Positive = 512,
        minibatch_group: Count = 4,
        num_classes: Count = 0,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(augment)
        halvings = power_of_two(image_size) - 2
        self.image_size = (image_size, image_size)
        self.smallest_size = image_size
        self.in_channels = in_channels
        self.num_classes = num_classes
        widths = [min(max_channels, max(1, channel_base // (image_size >> i))) for i in range(halvings + 1)]
        self.from_image = EqualizedConv(in_channels, widths[0], 1, activate=True)
        self.blocks = nn.ModuleList(Block(widths[i], widths[i + 1]) for i in range(halvings))
        self.deviation = MinibatchDeviation(minibatch_group) if minibatch_group else None
        last = widths[-1]
        self.conv = EqualizedConv(last + (1 if minibatch_group else 0), last, 3, padding=1, activate=True)
        self.linear = EqualizedLinear(16 * last, last, activate=True)
        self.out = EqualizedLinear(last, last if num_classes else 1)
        self.classes = nn.Embedding(num_classes, last) if num_classes else None

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        """Judges ``images`` with shape (B, in_channels, H, H) in [-1, 1]; ``condition`` are labels (B,).

        Raises:
            ValueError: for images or a condition that do not fit.
        """
        check_images(images, self.in_channels, exactly=self.image_size)
        check_labels(images, condition, self.num_classes)
        x, _ = self.augmented(images, None)
        x = like(self.from_image(x), self.conv.weight)  # of a grey image it cannot tell the memory format
        features: list[Tensor] = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        x = self.conv(x if self.deviation is None else self.deviation(x))
        logits = self.out(self.linear(x.flatten(1)))
        if self.classes is not None and condition is not None:
            embedded = self.classes(condition).to(logits.dtype)
            logits = (logits * embedded).sum(dim=1, keepdim=True) / embedded.shape[1] ** 0.5
        return DiscriminatorOutput(logits=logits, features=(*features, x))
