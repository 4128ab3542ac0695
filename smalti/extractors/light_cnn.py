"""LightCNN: the features of a small face network whose activation is the larger of two filters."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from smalti.extractors import Extractor
from smalti.extractors._download import PinnedFile, fetch
from smalti.extractors._frozen import freeze_filled
from smalti.extractors._images import Channels, as_rgb
from smalti.extractors._weights import label_of, paths_of, read_tensors
from smalti.nn.memory_format import with_like_gradient

FILE = PinnedFile(
    name="light_cnn_feature.pth",
    url="https://download.openmmlab.com/mmediting/restorers/dic/light_cnn_feature.pth",
    sha256="",  # none is published
    megabytes=5,
)
# Output channels and kernel sizes of the filters; None is a pooling that halves the image.
LAYERS = ((48, 5), None, (48, 1), (96, 3), None, (96, 1), (192, 3), None, (192, 1), (128, 3), (128, 1), (128, 3), None)


class LightCNN(Extractor):
    """The last convolutional features of LightCNN for colour images (Wu et al., arXiv:1511.02683).

    The form that face super-resolution uses (Ma et al., arXiv:2003.13063), for faces of 128 x 128 pixels; any size
    works. Images are in [-1, 1]; the network was trained on [0, 1] and gets that. Built on the meta device it needs no
    weights, and reads and downloads nothing.

    Args:
        weights: ``pretrained`` (OpenMMLab's, downloaded once), ``random`` (always the same), or the path of a file with
            names ``features.{i}.filter.weight``; several paths are read together.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Example:
        >>> features = LightCNN(weights="random")(torch.zeros(1, 3, 128, 128))
        >>> [tuple(feature.shape) for feature in features]
        [(1, 128, 8, 8)]
    """

    def __init__(self, *, weights: str | Sequence[str] = "pretrained", channels: Channels | None = None) -> None:
        super().__init__(channels)
        paths = paths_of(weights)
        self.name = f"light_cnn{label_of(weights)}"
        with torch.random.fork_rng(devices=[]):  # building draws numbers that are overwritten below
            self.features = _layers()
        freeze_filled(self, weights, lambda: _read(paths), self.name)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One feature, (B, 128, H / 16, W / 16) rounded up, of images with shape (B, 3, H, W) or (B, 1, H, W)."""
        return (with_like_gradient(self.features((as_rgb(images) + 1.0) / 2.0)),)


class MaxOut(nn.Module):
    """The larger of two convolutions at each element (Goodfellow et al., arXiv:1302.4389).

    Args:
        in_channels: width of what it takes.
        out_channels: width of what it gives.
        kernel_size: side of the filters, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.filter = nn.Conv2d(in_channels, 2 * out_channels, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, h, w)."""
        first, second = self.filter(x).chunk(2, dim=1)
        return torch.maximum(first, second)


def _layers() -> nn.Sequential:
    layers, in_channels = nn.Sequential(), 3
    for layer in LAYERS:
        if layer is None:
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        else:
            layers.append(MaxOut(in_channels, *layer))
            in_channels = layer[0]
    return layers


def _read(paths: Sequence[Path]) -> dict[str, Tensor]:
    """The tensors of the files, or the pretrained ones, without the classifier."""
    tensors = read_tensors(paths or [fetch(FILE, "weights")])
    return {key: value for key, value in tensors.items() if not key.startswith("classifier.")}
