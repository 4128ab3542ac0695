"""Sample pictures: what the model was given, and beside it what the model made of it."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti.data.grid import save_grid
from smalti.objectives.context import draws_images
from smalti.outputs import Batch

MARGIN = 4  # pixels
SMALLEST = 32  # a tile with fewer pixels is enlarged


Paint = Callable[[nn.Module, Batch, int], tuple[Tensor | None, Tensor]]
"""Model, batch and count -> what was given, or None, and what was made: images, each with shape (N, C, H, W)."""


def sample_images(model: nn.Module, batch: Batch, count: int) -> tuple[Tensor | None, Tensor]:
    """Inputs and what the model makes of them, each with shape (<= count, C, H, W), in evaluation mode.

    The inputs are None for a model that makes images from noise alone.

    Args:
        model: satisfies ``TrainableModel``; left in the mode it was in.
        batch: on the model's device.
        count: at most so many.
    """
    few: dict[str, Any] = {
        name: value[:count] if isinstance(value, (Tensor, list)) else value for name, value in batch.items()
    }
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            output = model.training_forward(few)  # type: ignore[operator]
    finally:
        model.train(training)
    judged = getattr(model, "judged", None)
    made = getattr(output, judged) if judged else few["image"]
    given = None if draws_images(model) else few["image"].detach().float().cpu()
    return given, made.detach().float().cpu()


def write_samples(path: Path, given: Tensor | None, made: Tensor) -> None:
    """Writes one PNG of pairs, the given image left of the made one; two pairs in a row.

    Args:
        path: of the picture.
        given: with shape (N, C, H, W) in [-1, 1]; None: nothing was given, and made images stand in a square,
            enlarged by a whole factor if they have fewer than 32 pixels.
        made: with shape (N, C', H', W').
    """
    if given is None:
        save_grid(path, enlarged(made), columns=math.ceil(len(made) ** 0.5), gap=MARGIN)
        return
    pairs = [image for pair in zip(given, made, strict=True) for image in pair]
    save_grid(path, pairs, columns=4, gap=MARGIN, pairs=True)


def enlarged(images: Tensor) -> Tensor:
    """Images (N, C, H, W) with every pixel a square, so that the short side has at least ``SMALLEST`` pixels."""
    factor = max(1, SMALLEST // min(images.shape[-2:]))
    return images.repeat_interleave(factor, dim=-2).repeat_interleave(factor, dim=-1)
