"""Images as networks trained on photos want them, on tensors and with gradients."""

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from smalti.extractors._images import as_rgb
from smalti.nn.constants import constant

Resize = Literal["bicubic", "bilinear", "nearest"]
Normalization = Literal["imagenet", "clip", "half"]

# mean and deviation of each channel of images in [0, 1]
STATISTICS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}


def prepare(images: Tensor, size: int, resize: Resize = "bicubic", normalization: Normalization = "imagenet") -> Tensor:
    """Images (B, 3, H, W) or (B, 1, H, W) in [-1, 1], squeezed to a square and normalised: (B, 3, size, size).

    Differentiable. The whole image is seen: sides of unequal length are scaled unequally.

    Args:
        images: to prepare.
        size: side of the result.
        resize: ``bicubic`` or ``bilinear`` with antialiasing, or ``nearest``, which picks pixels, as FQGAN did.
        normalization: whose mean and deviation: ``imagenet``, ``clip``, or ``half`` (0.5 and 0.5).

    Example:
        >>> import torch
        >>> prepare(torch.ones(1, 1, 8, 12), 4, "nearest", "half")[0, 2]
        tensor([[1., 1., 1., 1.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.],
                [1., 1., 1., 1.]])
    """
    x = as_rgb(images) * 0.5 + 0.5
    if resize == "nearest":
        x = F.interpolate(x, size=(size, size), mode="nearest")
    elif x.shape[-2:] != (size, size):
        x = F.interpolate(x, size=(size, size), mode=resize, antialias=True, align_corners=False)
    mean, deviation = (constant(of, x.dtype, x.device) for of in STATISTICS[normalization])
    return (x - mean[:, None, None]) / deviation[:, None, None]
