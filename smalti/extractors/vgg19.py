"""VGG19: the deeper classifier of the VGG family, whose activations before the ReLU super-resolution is trained on."""

from collections.abc import Sequence

from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._images import Channels
from smalti.extractors._vgg import VGG19_CONVOLUTIONS, VGG_WIDTHS, VGGTrunk
from smalti.extractors._weights import label_of, paths_of, pretrained_vgg19
from smalti.extractors.vgg16 import check_widths, fill_trunk

# Positions 2, 7, 16, 25, 34 of torchvision's ``features``.
BEFORE_RELU = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")


class VGG19(Extractor):
    """Layers of VGG19, by default the last convolution of each block, before its ReLU (arXiv:1409.1556).

    (Simonyan & Zisserman; these five: Wang et al., Real-ESRGAN, arXiv:2107.10833.) Images are in [-1, 1]; ImageNet's
    mean and deviation are taken care of. Built on the meta device it needs no weights, and reads and downloads nothing.

    Args:
        weights: ``pretrained`` (torchvision's ImageNet weights, downloaded once), ``random`` (always the same), or the
            path of a file with torchvision's names ``features.{i}.weight``; several paths are read together.
        widths: channels of the five blocks; other than the standard ones only without ``pretrained``.
        layers: which features, and in which order: ``conv3_2`` is before its ReLU, ``relu3_2`` after it, ``pool3`` ends
            block 3.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Example:
        >>> import torch
        >>> network = VGG19(weights="random", widths=(4, 4, 8, 8, 8), layers=("conv3_4", "pool1"))
        >>> [tuple(feature.shape[1:]) for feature in network(torch.zeros(1, 3, 32, 32))]
        [(8, 8, 8), (4, 16, 16)]
    """

    def __init__(
        self,
        *,
        weights: str | Sequence[str] = "pretrained",
        widths: Sequence[int] = VGG_WIDTHS,
        layers: Sequence[str] = BEFORE_RELU,
        channels: Channels | None = None,
    ) -> None:
        super().__init__(channels)
        paths = paths_of(weights)
        check_widths(weights, widths)
        self.name = f"vgg19{label_of(weights)}"
        self.trunk = VGGTrunk(VGG19_CONVOLUTIONS, widths, layers)
        self.smallest_size = self.trunk.smallest_size
        if not self.trunk.shift.is_meta:
            fill_trunk(self.trunk, weights, paths, pretrained_vgg19, self.name)
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The features ``layers`` of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1].

        Those of block k, counted from 0, have shape (B, widths[k], H // 2^k, W // 2^k); for block 4 images need at
        least 16 x 16 pixels.
        """
        return self.trunk(images)  # type: ignore[no-any-return]
