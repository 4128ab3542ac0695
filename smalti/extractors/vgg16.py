"""VGG16: the activations of a classifier trained on ImageNet, the classical perceptual features."""

from collections.abc import Sequence

from smalti.extractors._images import Channels
from smalti.extractors._vgg import VGG, VGG16_CONVOLUTIONS, VGG_WIDTHS
from smalti.extractors._weights import pretrained_vgg16


class VGG16(VGG):
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
        super().__init__(
            "vgg16",
            VGG16_CONVOLUTIONS,
            pretrained_vgg16,
            weights=weights,
            widths=widths,
            layers=layers,
            channels=channels,
        )
