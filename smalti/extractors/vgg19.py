"""VGG19: the deeper classifier of the VGG family, whose activations before the ReLU super-resolution is trained on."""

from collections.abc import Sequence

from smalti.extractors._images import Channels
from smalti.extractors._vgg import VGG, VGG19_CONVOLUTIONS, VGG_WIDTHS
from smalti.extractors._weights import pretrained_vgg19

# Positions 2, 7, 16, 25, 34 of torchvision's ``features``.
BEFORE_RELU = ("conv1_2", "conv2_2", "conv3_4", "conv4_4", "conv5_4")


class VGG19(VGG):
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
        super().__init__(
            "vgg19",
            VGG19_CONVOLUTIONS,
            pretrained_vgg19,
            weights=weights,
            widths=widths,
            layers=layers,
            channels=channels,
        )
