"""What all generators share: noise in, images out, labels if they are class-conditional."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from smalti.models._saved import SavedModel
from smalti.nn.sizes import check_classes
from smalti.outputs import Batch, GeneratorOutput
from smalti.registry import UserError


class Generator(SavedModel, library_name="smalti", tags=["image-generator"]):
    """Base of the generators: noise (B, latent_size) and, with ``num_classes``, labels (B,) -> images (B, C, H, W).

    ``image_size`` is height and width, ``image_channels`` C; ``num_classes`` is 0 for a generator without labels.
    """

    judged = "images"
    image_channels: int
    image_size: tuple[int, int]
    latent_size: int
    num_classes: int = 0

    @abstractmethod
    def latents(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """What ``synthesize`` starts from, with shape (B, ...).

        Args:
            noise: standard normal, with shape (B, latent_size).
            labels: classes, int64 with shape (B,); exactly if there are classes.
            truncation: below 1, variety is given for quality.
        """

    @abstractmethod
    def synthesize(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images with shape (B, C, H, W) in [-1, 1] from ``latents`` and classes (B,)."""

    def forward(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> GeneratorOutput:
        """Images (B, C, H, W) from noise (B, latent_size) and labels (B,), and the latents between them.

        Raises:
            ValueError: for noise or labels that do not fit.
        """
        self._check(noise, labels)
        latents = self.latents(noise, labels, truncation)
        return GeneratorOutput(images=self.synthesize(latents, labels), latents=latents)

    def training_forward(self, batch: Batch) -> GeneratorOutput:
        """Images as many as ``batch`` has, from its ``noise`` (B, latent_size), or from noise that is drawn here.

        The column ``label`` (B,) is what a class-conditional generator makes.
        """
        image: Tensor = batch["image"]
        noise = batch.get("noise")
        if noise is None:
            noise = torch.randn(image.shape[0], self.latent_size, dtype=image.dtype, device=image.device)
        output: GeneratorOutput = self(noise, batch["label"] if self.num_classes else None)
        return output

    def sample(self, noise: Tensor, labels: Tensor | None = None, truncation: float = 1.0) -> Tensor:
        """Images with shape (B, C, H, W) from noise (B, latent_size), or from latents (B, L, C) as ``latents`` gives.

        Args:
            noise: standard normal with two axes, or latents with three.
            labels: classes, int64 with shape (B,); exactly if there are classes.
            truncation: below 1, variety is given for quality; of noise only.
        """
        if noise.ndim == 3:
            if labels is not None:
                check_classes(labels, self.num_classes)
            return self.synthesize(noise, labels)
        output: GeneratorOutput = self(noise, labels, truncation)
        return output.images

    def noise_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...]:
        """(latent_size,).

        Raises:
            UserError: if images of ``image_shape`` (C, H, W) are not what this generator makes.
        """
        made = (self.image_channels, *self.image_size)
        if tuple(image_shape) != made:
            raise UserError(f"images with shape {tuple(image_shape)}: this generator makes (C, H, W) = {made}")
        return (self.latent_size,)

    def _check(self, noise: Tensor, labels: Tensor | None) -> None:
        if noise.ndim != 2 or noise.shape[1] != self.latent_size:
            raise ValueError(f"noise has shape {tuple(noise.shape)}: expected (B, {self.latent_size})")
        if (labels is not None) != (self.num_classes > 0):
            given = "missing" if labels is None else "given"
            raise ValueError(f"labels are {given}: this generator has num_classes={self.num_classes}")
        if labels is not None and tuple(labels.shape) != (noise.shape[0],):
            raise ValueError(f"labels have shape {tuple(labels.shape)}: expected ({noise.shape[0]},)")
        if labels is not None:
            check_classes(labels, self.num_classes)


def truncated(noise: Tensor, truncation: float) -> Tensor:
    """Noise with shape (B, ...) pulled towards its mean 0.

    >>> truncated(torch.ones(1, 2), 0.5)
    tensor([[0.5000, 0.5000]])
    """
    return noise if truncation == 1.0 else noise * truncation


class ClassEmbedding(nn.Module):
    """A learned vector for each class, put beside the noise: labels (B,) -> (B, width).

    Args:
        num_classes: number of classes; 0: there are none, and nothing is put beside the noise.
        width: of a vector.
    """

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.width = width if num_classes else 0
        self.table = nn.Embedding(num_classes, width) if num_classes else None

    def forward(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """``noise`` (B, n) and the vectors of ``labels`` (B,), with shape (B, n + width)."""
        if self.table is None or labels is None:
            return noise
        return torch.cat([noise, self.table(labels).to(noise.dtype)], dim=1)
