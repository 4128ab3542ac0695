"""Sample pictures: what the model was given above what it made of it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smalti.outputs import Batch


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


def write_samples(path: Path, rows: list[Tensor]) -> None:
    """Writes rows of images, each with shape (N, C, H, W) in [-1, 1], as one PNG."""
    from smalti.data.grids import image_grid, save_grid

    path.parent.mkdir(parents=True, exist_ok=True)
    save_grid(path, image_grid(rows))
