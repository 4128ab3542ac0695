"""What metrics see of a model that makes images from noise: as many as there are real ones."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeGuard

import torch
from torch import Tensor

from smalti.metrics import Observation
from smalti.outputs import Batch, BottleneckOutput


class ImageMaker(Protocol):
    """A model that makes images from noise given from outside."""

    judged: str

    def noise_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """Shape of the noise of one image (C, H, W)."""

    def sample(self, noise: Tensor) -> Tensor:
        """Images (B, C, H, W) from noise (B, ...)."""

    def training_forward(self, batch: Batch) -> Any:
        """Images from the columns ``noise`` and, for a class-conditional model, ``label``."""


def makes_images(model: Any) -> TypeGuard[ImageMaker]:
    """Whether a model makes images from noise: it samples, and has an output that an adversary judges."""
    asked = all(callable(getattr(model, name, None)) for name in ("sample", "noise_shape", "training_forward"))
    return asked and getattr(model, "judged", None) is not None


def observe_made(model: ImageMaker, batch: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> Observation:
    """As many made as real images (B, C, H, W), with the labels of the real ones; the model works in ``dtype``.

    The noise of an image depends on its ``index`` alone: the same at every evaluation, whatever the batches and ranks.
    """
    images: Tensor = batch["image"]
    shape = model.noise_shape(tuple(images.shape[1:]))
    noise = torch.stack([_noise(int(index), shape) for index in batch["index"].tolist()]).to(images.device, dtype)
    made: Tensor = getattr(model.training_forward({**batch, "noise": noise}), model.judged)
    return Observation(
        target=images,
        reconstruction=made.to(images.dtype),
        bottleneck=BottleneckOutput(latent=noise),
        codebook_sizes={},
    )


def _noise(index: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(index))
