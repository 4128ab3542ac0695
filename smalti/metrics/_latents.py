"""Mean and deviation of latents, channel by channel, over a data set."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smalti.models.autoencoder import Autoencoder
from smalti.outputs import Batch
from smalti.registry import UserError


@dataclass(frozen=True, kw_only=True)
class LatentStatistics:
    """What latents were measured to be.

    Args:
        mean: of each channel, float64 with shape (C,).
        std: deviation of each channel, float64 with shape (C,).
        overall: deviation of all elements together; latent-diffusion's ``scale_factor`` is 1 / this.
        images: that were measured.
    """

    mean: Tensor
    std: Tensor
    overall: float
    images: int

    def config(self) -> dict[str, list[float]]:
        """``{shift, scale}``, as a model's ``latents`` option takes them."""
        return {"shift": self.mean.tolist(), "scale": (1.0 / self.std).tolist()}


@torch.inference_mode()
def latent_statistics(model: Autoencoder, batches: Iterable[Batch]) -> LatentStatistics:
    """Measures the latents of images; of a KL model its samples, whose variance is that of the means and their own.

    Args:
        model: in evaluation mode.
        batches: with ``image`` (B, C, H, W), sizes divisible by the model's factor.

    Raises:
        UserError: if there is no image, or a channel never changes.
    """
    channels = model.bottleneck.latent_channels
    count, images = 0, 0
    mean, squares, noise = (torch.zeros(channels, dtype=torch.float64) for _ in range(3))
    device: Any = model.last_layer.device
    for batch in batches:
        output = model.encode(batch["image"].to(device))
        known = output.latent if output.posterior is None else output.posterior.mean
        flat = known.double().cpu().transpose(0, 1).flatten(1)
        # Chan, Golub & LeVeque 1979: sums of squares around the mean, merged without cancellation.
        added, part = flat.shape[1], flat.mean(dim=1)
        between = (part - mean).square() * (count * added / (count + added))
        squares += (flat - part[:, None]).square().sum(dim=1) + between
        mean += (part - mean) * (added / (count + added))
        if output.posterior is not None:
            noise += output.posterior.var.double().cpu().sum(dim=(0, 2, 3))
        count += added
        images += len(batch["image"])
    if not count:
        raise UserError("latent-stats: there is no image to measure")
    variance = (squares + noise) / count
    if not (variance > 0).all():
        dead = [index for index, value in enumerate(variance.tolist()) if not value > 0]
        raise UserError(f"latent-stats: latent channels {dead} never change, they have no scale")
    overall = (variance + (mean - mean.mean()).square()).mean().sqrt()
    return LatentStatistics(mean=mean, std=variance.sqrt(), overall=float(overall), images=images)
