"""A look at the range of the first images that a trained model is given: the commonest mistake makes no error."""

import warnings

import torch
from torch import Tensor

from smalti.nn.exporting import is_exporting
from smalti.registry import UserError


def look_at_range(images: Tensor) -> bool:
    """Whether images could be looked at; waits for the device.

    Args:
        images: floats with any shape, expected in [-1, 1].

    Raises:
        UserError: if they look like 0 to 255.

    Warns:
        UserWarning: if they look like [0, 1].
    """
    traced = is_exporting() or torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    if traced or type(images) is not Tensor:
        return False
    if not images.numel() or images.is_meta or (images.is_cuda and torch.cuda.is_current_stream_capturing()):
        return False
    low, high = (float(value) for value in images.detach().aminmax())
    if low >= 0.0 and high > 1.5:
        raise UserError(f"images from {low:.4g} to {high:.4g}: expected [-1, 1]: of bytes give images / 127.5 - 1")
    if 0.0 <= low < high - 0.5 and not _may_be_of_bytes(images.detach()):
        warnings.warn(
            f"images from {low:.4g} to {high:.4g}: expected [-1, 1]: of images in [0, 1] give 2 * images - 1. If they "
            "are in [-1, 1] and just so bright, all is well. This is said once",
            UserWarning,
            stacklevel=4,
        )
    return True


def _may_be_of_bytes(images: Tensor) -> bool:
    """Whether numbers are bytes in [-1, 1]: k / 127.5 - 1 is an odd number of 255ths, and k / 255 is not always.

    Numbers of 16 bits cannot tell.
    """
    if images.dtype not in {torch.float32, torch.float64}:
        return True
    numbers = 255.0 * images
    whole = numbers.round()
    return bool(((numbers - whole).abs() < 1e-2).all() and (whole % 2 == 1).all())
