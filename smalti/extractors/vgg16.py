"""VGG16: the activations of a classifier trained on ImageNet, the classical perceptual features."""

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._images import Channels
from smalti.extractors._vgg import VGG16_CONVOLUTIONS, VGG_WIDTHS, VGGTrunk
from smalti.extractors._weights import (
    fill,
    is_head,
    label_of,
    paths_of,
    pretrained_vgg16,
    random_tensors,
    read_tensors,
)


class VGG16(Extractor):
    """Layers of VGG16, by default the last ReLU of each block (Simonyan & Zisserman, arXiv:1409.1556).

    Images are in [-1, 1]; ImageNet's mean and deviation are taken care of.

    Built on the meta device it needs no weights, and reads and downloads nothing.

    Args:
        weights: ``pretrained`` (torchvision's ImageNet weights, downloaded once), ``random`` (always the same), or the
            path of a file with torchvision's names ``features.{i}.weight``; several paths are read together.
        widths: channels of the five blocks; other than the standard ones only without ``pretrained``.
        layers: which features, and in which order: ``conv3_2`` is before its ReLU, ``relu3_2`` after it, ``pool3`` ends
            block 3.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Example:
        >>> import torch
        >>> features = VGG16(weights="random", widths=(4, 4, 8, 8, 8))(torch.zeros(1, 3, 32, 32))
        >>> [tuple(feature.shape[1:]) for feature in features]
        [(4, 32, 32), (4, 16, 16), (8, 8, 8), (8, 4, 4), (8, 2, 2)]
    """

    def __init__(
        self,
        *,
        weights: str | Sequence[str] = "pretrained",
        widths: Sequence[int] = VGG_WIDTHS,
        layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"),
        channels: Channels | None = None,
    ) -> None:
        super().__init__(channels)
        paths = paths_of(weights)
        check_widths(weights, widths)
        self.name = f"vgg16{label_of(weights)}"
        self.trunk = VGGTrunk(VGG16_CONVOLUTIONS, widths, layers)
        self.smallest_size = self.trunk.smallest_size
        if not self.trunk.shift.is_meta:
            fill_trunk(self.trunk, weights, paths, pretrained_vgg16, self.name)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features ``layers`` of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1].

        Those of block k, counted from 0, have shape (B, widths[k], H // 2^k, W // 2^k); for block 4 images need at
        least 16 x 16 pixels.
        """
        return self.trunk(images)  # type: ignore[no-any-return]


def fill_trunk(
    trunk: VGGTrunk, weights: str | Sequence[str], paths: Sequence[Path], pretrained: Callable[[], Path], name: str
) -> None:
    """Fills a VGG with random weights, those of ``paths``, or without any with those of the file ``pretrained()``."""
    expected = trunk.named_weights()
    given = random_tensors(expected) if weights == "random" else keep_trunk(read_tensors(paths or [pretrained()]))
    fill(expected, given, name)


def keep_trunk(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leaves out what the files hold beside the trunk: the classifier, LPIPS's scaling and linear weights."""
    dropped = ("classifier.", "scaling_layer.")
    return {key: value for key, value in tensors.items() if not key.startswith(dropped) and not is_head(key)}


def check_widths(weights: str | Sequence[str], widths: Sequence[int]) -> None:
    """Raises ValueError for widths that the pretrained weights do not have."""
    if weights == "pretrained" and tuple(widths) != VGG_WIDTHS:
        raise ValueError(f"widths={list(widths)}: expected {list(VGG_WIDTHS)} with weights='pretrained'")
