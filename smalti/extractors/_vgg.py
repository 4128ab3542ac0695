"""The convolutions of VGG, frozen: what the extractors ``vgg16``, ``vgg19`` and ``lpips`` are made of."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smalti.extractors import Extractor
from smalti.extractors._images import Channels, as_rgb
from smalti.extractors._weights import fill, is_head, label_of, paths_of, random_tensors, read_tensors
from smalti.nn.memory_format import with_like_gradient
from smalti.registry import suggest

VGG16_CONVOLUTIONS = (2, 2, 3, 3, 3)
VGG19_CONVOLUTIONS = (2, 2, 4, 4, 4)
VGG_WIDTHS = (64, 128, 256, 512, 512)

# ImageNet's mean and deviation, moved from [0, 1] to [-1, 1]; rounded as in the originals.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class FrozenConvolution(nn.Module):
    """A convolution whose weights are buffers: not trained, not saved, moved with the module.

    Args:
        in_channels: width of what it takes.
        out_channels: width of what it gives.
        kernel: its side.
        stride: by how much it shrinks the image.
        padding: zeros around it.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.register_buffer("weight", torch.zeros(out_channels, in_channels, kernel, kernel), persistent=False)
        self.register_buffer("bias", torch.zeros(out_channels), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h', w'), by default of the same size."""
        return F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)


class Trunk(nn.Module):
    """Base of the convolutions of a classifier, which take images in [-1, 1] and know ImageNet's mean and deviation."""

    shift: Tensor
    scale: Tensor
    features: nn.ModuleDict
    title: ClassVar[str]
    smallest_size: int

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1), persistent=False)
        self.features = nn.ModuleDict()

    def named_weights(self) -> Mapping[str, Tensor]:
        """Torchvision's name (``features.0.weight``) -> the tensor."""
        return {name: buffer for name, buffer in self.named_buffers() if name.startswith("features.")}

    def normalized(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) or (B, 1, H, W) in [-1, 1], less the mean and over the deviation, with three channels.

        Raises:
            ValueError: for other channels, or fewer pixels than the poolings need.
        """
        images = as_rgb(images)
        if min(images.shape[2:]) < self.smallest_size:
            raise ValueError(
                f"images of {images.shape[2]} x {images.shape[3]} pixels: {self.title} needs at least "
                f"{self.smallest_size} x {self.smallest_size}"
            )
        return (images - self.shift) / self.scale


class VGGTrunk(Trunk):
    """Blocks of 3x3 convolutions and ReLU with max pooling between them (Simonyan & Zisserman, arXiv:1409.1556).

    Args:
        convolutions: number of convolutions of each block.
        widths: channels of each block.
        layers: names of the features: ``conv3_2`` (before its ReLU), ``relu3_2`` or ``pool3`` of block 3, and so on;
            None is the last ReLU of each block.
    """

    title = "VGG"

    def __init__(self, convolutions: Sequence[int], widths: Sequence[int], layers: Sequence[str] | None = None) -> None:
        super().__init__()
        if len(widths) != len(convolutions) or min(widths, default=0) < 1:
            raise ValueError(f"widths={list(widths)}: expected {len(convolutions)} numbers >= 1")
        steps: list[tuple[str, str]] = []  # name of the layer, and the index that torchvision gives it
        in_channels = 3
        for block, (count, width) in enumerate(zip(convolutions, widths, strict=True), start=1):
            for k in range(1, count + 1):
                self.features[str(len(steps))] = FrozenConvolution(in_channels, width)
                in_channels = width
                steps += [(f"conv{block}_{k}", str(len(steps))), (f"relu{block}_{k}", str(len(steps) + 1))]
            steps.append((f"pool{block}", str(len(steps))))
        last = tuple(f"relu{block}_{count}" for block, count in enumerate(convolutions, start=1))
        self.layers = last if layers is None else tuple(layers)
        names = [name for name, _ in steps]
        _check_layers(self.layers, names)
        # Nothing above the last layer asked for is computed.
        self.steps = steps[: 1 + max(names.index(layer) for layer in self.layers)]
        self.smallest_size = 2 ** sum(name.startswith("pool") for name, _ in self.steps)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features ``layers``, in that order, for images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1].

        A grey image is taken as three equal channels. Those of block k, counted from 0, have shape
        (B, widths[k], H // 2^k, W // 2^k).

        Raises:
            ValueError: for other channels, or fewer pixels than the poolings need.
        """
        x = self.normalized(images)
        found: dict[str, Tensor] = {}
        for name, index in self.steps:
            if index in self.features:
                x = self.features[index](x)
            else:
                x = F.relu(x) if name.startswith("relu") else F.max_pool2d(x, kernel_size=2)
            if name in self.layers:
                found[name] = with_like_gradient(x)
        return tuple(found[layer] for layer in self.layers)


class VGG(Extractor):
    """Base of the extractors ``vgg16`` and ``vgg19``, which differ in their convolutions and files.

    Args:
        network: its name, ``vgg16`` or ``vgg19``.
        convolutions: number of convolutions of each block.
        pretrained: fetches the file of its trained weights.
        weights: ``pretrained``, ``random``, or one or several paths.
        widths: channels of each block.
        layers: names of the features, in their order.
        channels: which channels of the images it sees; None: all, one or three.
    """

    def __init__(
        self,
        network: str,
        convolutions: Sequence[int],
        pretrained: Callable[[], Path],
        *,
        weights: str | Sequence[str],
        widths: Sequence[int],
        layers: Sequence[str],
        channels: Channels | None,
    ) -> None:
        super().__init__(channels)
        paths = paths_of(weights)
        check_widths(weights, widths)
        self.name = f"{network}{label_of(weights)}"
        self.trunk = VGGTrunk(convolutions, widths, layers)
        self.smallest_size = self.trunk.smallest_size
        if not self.trunk.shift.is_meta:
            expected = self.trunk.named_weights()
            given = random_tensors(expected) if weights == "random" else _read(paths or [pretrained()])
            fill(expected, given, self.name)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features ``layers`` of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1].

        Those of block k, counted from 0, have shape (B, widths[k], H // 2^k, W // 2^k); for block 4 images need at
        least 16 x 16 pixels.
        """
        return self.trunk(images)  # type: ignore[no-any-return]


def check_widths(weights: str | Sequence[str], widths: Sequence[int], standard: Sequence[int] = VGG_WIDTHS) -> None:
    """Raises ValueError for widths that the pretrained weights, which have the ``standard`` ones, do not have."""
    if weights == "pretrained" and tuple(widths) != tuple(standard):
        raise ValueError(f"widths={list(widths)}: expected {list(standard)} with weights='pretrained'")


def _read(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of the files without what they hold beside the trunk: classifier, LPIPS's scaling and heads."""
    dropped = ("classifier.", "scaling_layer.")
    tensors = read_tensors(paths)
    return {key: value for key, value in tensors.items() if not key.startswith(dropped) and not is_head(key)}


def _check_layers(layers: Sequence[str], known: Sequence[str]) -> None:
    """Raises ValueError unless ``layers`` are different names of layers, at least one."""
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers={list(layers)}: expected one or more different names")
    for layer in layers:
        if layer not in known:
            raise ValueError(f"layers: no layer {layer!r}{suggest(layer, known)}")
