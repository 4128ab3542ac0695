"""Sample pictures: what the model was given, and beside it what the model made of it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti.data.grid import save_grid
from smalti.outputs import Batch

MARGIN = 4  # pixels


def sample_images(model: nn.Module, batch: Batch, count: int) -> tuple[Tensor, Tensor]:
    """Inputs and what the model makes of them, each with shape (<= count, C, H, W), in evaluation mode.

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
    return few["image"].detach().float().cpu(), made.detach().float().cpu()


def write_samples(path: Path, given: Tensor, made: Tensor) -> None:
    """Writes one PNG of pairs, the given image left of the made one; two pairs in a row.

    Args:
        path: of the picture.
        given: with shape (N, C, H, W) in [-1, 1].
        made: with shape (N, C', H', W').
    """
    pairs = [image for pair in zip(given, made, strict=True) for image in pair]
    save_grid(path, pairs, columns=4, gap=MARGIN)
