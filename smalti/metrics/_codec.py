"""Pillow's codecs: an image to the bytes of a file and back."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def eight_bits(images: Tensor) -> Tensor:
    """Images (B, C, H, W) in [-1, 1], clamped and rounded to uint8 on the CPU."""
    return ((images.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def written(image: Tensor, format: str, **options: int) -> bytes:
    """The file of an image, uint8 with shape (1 or 3, H, W)."""
    array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, format, **options)
    return file.getvalue()


def read(data: bytes, channels: int) -> Tensor:
    """The image of a file, uint8 with shape (channels, H, W)."""
    with Image.open(io.BytesIO(data)) as opened:
        array = np.array(opened.convert("L" if channels == 1 else "RGB"), dtype=np.uint8)
    back = torch.from_numpy(array)
    return back[None] if back.ndim == 2 else back.permute(2, 0, 1)
