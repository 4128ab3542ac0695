"""The convolutions of VGG, frozen: what the extractors ``vgg16`` and ``lpips`` are made of."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)
VGG_WIDTHS = (64, 128, 256, 512, 512)

# ImageNet's mean and deviation, moved from [0, 1] to [-1, 1]; rounded as in the originals.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class FrozenConvolution(nn.Module):
    """A 3x3 convolution whose weights are buffers: not trained, not saved, moved with the module.

    Args:
        in_channels: width of what it takes.
        out_channels: width of what it gives.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(out_channels, in_channels, 3, 3), persistent=False)
        self.register_buffer("bias", torch.zeros(out_channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h, w)."""
        return F.conv2d(x, self.weight, self.bias, padding=1)


class VGGTrunk(nn.Module):
    """Blocks of 3x3 convolutions and ReLU with max pooling between them (Simonyan & Zisserman, arXiv:1409.1556).

    Args:
        convolutions: number of convolutions of each block.
        widths: channels of each block.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, convolutions: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        if len(widths) != len(convolutions) or min(widths, default=0) < 1:
            raise ValueError(f"widths={list(widths)}: expected {len(convolutions)} numbers >= 1")
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.features = nn.ModuleDict()
        self.blocks: list[list[str]] = []
        index, in_channels = 0, 3
        for count, width in zip(convolutions, widths, strict=True):
            self.blocks.append([])
            for _ in range(count):
                self.features[str(index)] = FrozenConvolution(in_channels, width)
                self.blocks[-1].append(str(index))
                in_channels = width
                index += 2  # torchvision numbers the ReLU too
            index += 1  # and the pooling
        self.smallest_size = 2 ** (len(self.blocks) - 1)

    def named_weights(self) -> Mapping[str, Tensor]:
        """Torchvision's name (``features.0.weight``) -> the tensor."""
        return {name: buffer for name, buffer in self.named_buffers() if name.startswith("features.")}

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The last ReLU of each block, for images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1].

        A grey image is taken as three equal channels. Block k gives (B, widths[k], H // 2^k, W // 2^k).

        Raises:
            ValueError: for other channels, or fewer pixels than the poolings need.
        """
        if images.ndim != 4 or images.shape[1] not in {1, 3}:
            raise ValueError(
                f"images have shape {tuple(images.shape)}: expected (B, 3, H, W), or (B, 1, H, W) for grey"
            )
        if min(images.shape[2:]) < self.smallest_size:
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels: VGG needs at least "
                f"{self.smallest_size} x {self.smallest_size}"
            )
        x = (images - self.shift) / self.scale
        outputs: list[Tensor] = []
        for block in self.blocks:
            if outputs:
                x = F.max_pool2d(x, kernel_size=2)
            for index in block:
                x = F.relu(self.features[index](x))
            outputs.append(x)
        return tuple(outputs)
