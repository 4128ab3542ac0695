"""LPIPS features: activations of VGG16 or AlexNet, scaled so that their squared distance is LPIPS."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from smalti.extractors import Extractor
from smalti.extractors._alex import ALEX_WIDTHS, AlexTrunk
from smalti.extractors._images import Channels
from smalti.extractors._vgg import SCALE, SHIFT, VGG16_CONVOLUTIONS, VGG_WIDTHS, VGGTrunk, check_widths
from smalti.extractors._weights import (
    fill,
    is_head,
    label_of,
    paths_of,
    pretrained_alexnet,
    pretrained_heads,
    pretrained_vgg16,
    random_tensors,
    read_tensors,
)
from smalti.registry import UserError

Network = Literal["vgg", "alex"]
_NAMES = {"vgg": "vgg16", "alex": "alexnet"}
UNIT_EPS = 1e-10
LEAST_NORM = 1e-6


class LPIPS(Extractor):
    """sqrt(w) f / (|f| + 1e-10) for the five features f of VGG16 or AlexNet (Zhang et al., arXiv:1801.03924).

    |f| is the norm over channels at each position and w are the trained linear weights, so that

        LPIPS(x, y) = sum over layers of mean over positions of sum over channels of (features(x) - features(y))^2.

    Frozen, in evaluation mode for ever (the originals' dropout is left out), in no state dict and no parameter count.
    Built on the meta device it needs no weights, and reads and downloads nothing.

    Args:
        network: ``vgg``, VGG16, which losses take; ``alex``, AlexNet, which the authors' package and torchmetrics
            measure with unless told otherwise. Their numbers are not comparable.
        weights: ``pretrained``: torchvision's ImageNet network (downloaded once) and the linear weights, version 0.1
            (from the installed torchmetrics, else downloaded). ``random``: always the same random ones; ``name`` says
            so. Or the path of a file: trunk as ``features.{i}.weight`` (torchvision) or ``net.slice{k}.{i}.weight``
            (taming, latent-diffusion), linear weights as ``lin{k}.model.1.weight``. Several paths are read together. If
            none of them holds linear weights, the pretrained ones are used.
        widths: channels of the five features; None: the network's own. Others only without ``pretrained``.
        channels: which channels of the images it sees, and in which order, counted from 0; None: all, one or three.

    Example:
        >>> extractor = LPIPS(weights="random", widths=(4, 4, 8, 8, 8))
        >>> extractor.name, len(extractor.state_dict()), len(list(extractor.parameters()))
        ('lpips-vgg16 (random weights)', 0, 0)
    """

    def __init__(
        self,
        *,
        network: Network = "vgg",
        weights: str | Sequence[str] = "pretrained",
        widths: Sequence[int] | None = None,
        channels: Channels | None = None,
    ) -> None:
        super().__init__(channels)
        if network not in _NAMES:
            raise ValueError(f"network={network!r}: expected 'vgg' or 'alex'")
        paths = paths_of(weights)
        standard = ALEX_WIDTHS if network == "alex" else VGG_WIDTHS
        widths = standard if widths is None else widths
        check_widths(weights, widths, standard)
        self.network: Network = network
        self.name = f"lpips-{_NAMES[network]}{label_of(weights)}"
        self.trunk = AlexTrunk(widths) if network == "alex" else VGGTrunk(VGG16_CONVOLUTIONS, widths)
        self.smallest_size = self.trunk.smallest_size
        for k, width in enumerate(widths):
            self.register_buffer(f"head{k}", torch.zeros(1, width, 1, 1), persistent=False)
        if not self.trunk.shift.is_meta:
            self._load(paths, random=weights == "random")
        self.train(False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Five features of images with shape (B, 3, H, W) or (B, 1, H, W) in [-1, 1].

        Images are at least 16 pixels wide and high, for AlexNet 31. Feature k of VGG16 has shape (B, widths[k],
        H // 2^k, W // 2^k), those of AlexNet are about 4, 8, 16, 16 and 16 times smaller than the image; grey images
        are taken as three equal channels.
        """
        features: tuple[Tensor, ...] = self.trunk(images)
        # The root is taken here, not when the weights are read: rounded to float32 it would spoil a float64 module.
        return tuple(self.get_buffer(f"head{k}").sqrt() * unit(feature) for k, feature in enumerate(features))

    def _load(self, paths: Sequence[Path], *, random: bool) -> None:
        heads = {f"lin{k}.model.1.weight": self.get_buffer(f"head{k}") for k in range(len(self.trunk.layers))}
        expected = {**self.trunk.named_weights(), **heads}
        fill(expected, random_tensors(expected) if random else _read(paths, self.network), self.name)
        for key, head in heads.items():
            if not bool((head >= 0.0).all()):
                raise UserError(
                    f"weights from {self.name}: {key} has the value {head.min().item():.3g}; LPIPS needs linear "
                    f"weights >= 0, negative ones make negative distances"
                )


def unit(features: Tensor) -> Tensor:
    """f / (|f| + 1e-10) with the norm over channels; (B, C, h, w) to the same shape, at least float32.

    The divisor is at least 1e-6, so that no gradient grows more than 1e6 times where a feature vector is 0 or almost;
    the originals' is NaN or up to 1e10 there. Features of VGG are much longer.
    """
    if features.dtype in {torch.float16, torch.bfloat16}:
        features = features.float()
    norm: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (norm + UNIT_EPS).clamp_min(LEAST_NORM)


def _read(paths: Sequence[Path], network: Network) -> dict[str, Tensor]:
    """The tensors of the files, or the pretrained ones; without torchvision's classifier, scaling checked."""
    trunk = pretrained_alexnet if network == "alex" else pretrained_vgg16
    tensors = read_tensors(paths or [trunk(), pretrained_heads(network)])
    if not any(is_head(key) for key in tensors):
        tensors |= read_tensors([pretrained_heads(network)])
    for key, values in (("scaling_layer.shift", SHIFT), ("scaling_layer.scale", SCALE)):
        given = tensors.pop(key, None)
        if given is not None and not torch.allclose(given.flatten().float(), torch.tensor(values)):
            raise UserError(
                f"{key} is {given.flatten().tolist()}: expected {list(values)}, the one of LPIPS for [-1, 1]"
            )
    return {key: value for key, value in tensors.items() if not key.startswith("classifier.")}
