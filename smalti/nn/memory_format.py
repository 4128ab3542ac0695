"""The memory format that images are in: what makes a tensor anew hands on the one it was given.

A convolution answers in the format of its input, and each change of format is a copy. Only formats are chosen here;
values are the same in both.
"""

import torch
from torch import Tensor


def format_of(x: Tensor) -> torch.memory_format:
    """``torch.channels_last`` if x with shape (B, C, H, W) is so and not also contiguous, else contiguous.

    Example:
        >>> format_of(torch.zeros(1, 2, 3, 3).to(memory_format=torch.channels_last)), format_of(torch.zeros(1, 2, 3, 3))
        (torch.channels_last, torch.contiguous_format)
    """
    last = x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format
