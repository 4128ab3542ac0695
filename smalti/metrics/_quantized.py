"""Images on the grid of 8 bits, as those see them who measure files."""

from typing import Literal

from torch import Tensor

Quantize = Literal["none", "round", "truncate", "truncate128"]


def quantized(images: Tensor, how: Quantize) -> Tensor:
    """Images in [-1, 1] of any shape, as they are, or on the grid of 8 bits; in the same range.

    ``round`` takes the nearest of 256 values; ``truncate`` limits 255 (x + 1) / 2 to 0 to 255 and cuts it off, so that
    in float32 a value on the grid may fall to the one below, as in code that does this; ``truncate128`` is ADM's:
    127.5 x + 128, limited to 0 to 255, cut off.

    Example:
        >>> import torch
        >>> x = torch.tensor([-1.0, 0.0, 0.005, 1.0])
        >>> hows = ("round", "truncate", "truncate128")
        >>> [((quantized(x, how) + 1) * 127.5).round().tolist() for how in hows]
        [[0.0, 128.0, 128.0, 255.0], [0.0, 127.0, 128.0, 255.0], [0.0, 128.0, 128.0, 255.0]]
    """
    if how == "none":
        return images
    if how == "round":
        return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    levels = (images + 1) / 2 * 255 if how == "truncate" else images * 127.5 + 128
    return levels.clamp(0, 255).floor() / 127.5 - 1
