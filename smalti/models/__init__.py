"""Models: the networks that are trained, and the encoders and decoders they are made of."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from smalti.outputs import Batch
from smalti.registry import Part


class Model(Part, nn.Module):
    """Base of the trainable models of this package; a model from elsewhere need only satisfy ``TrainableModel``."""

    kind = "model"
    package = "smalti.models"
    stand_ins = (nn.Module,)
    judged: ClassVar[str | None] = None

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer, where gradients are balanced."""

    @property
    def reads(self) -> frozenset[str]:
        """Columns of a batch without which it cannot train."""
        return frozenset({"image"})

    @property
    def provides(self) -> frozenset[str] | None:
        """Optional fields of its output that it fills; None: all of them."""
        return None

    @property
    def output_keys(self) -> Mapping[str, Collection[str]]:
        """Mapping-valued field of its output -> the keys it will have; a field that is not listed may have any."""
        return {}

    @abstractmethod
    def training_forward(self, batch: Batch) -> Any:
        """One training pass; returns a frozen dataclass whose annotated fields a recipe can name.

        If ``batch`` has a column ``noise``, it is used wherever the pass would draw noise.
        """

    def noise_shape(self, image_shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Shape, without the batch axis, of the noise one sample needs for images of ``image_shape`` (C, H, W)."""
        return None

    def update(self, outputs: Sequence[Any]) -> None:
        """Changes persistent state after a successful step, from the detached outputs of all its micro-batches."""


class Encoder(Part, nn.Module):
    """Base of all encoders: images (B, image_channels, H, W) -> features (B, out_channels, H / factor, W / factor)."""

    kind = "encoder"
    package = "smalti.models"
    stand_ins = (nn.Module,)
    image_channels: int
    out_channels: int
    factor: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Maps images with shape (B, image_channels, H, W) to features with shape (B, out_channels, h, w)."""


class Decoder(Part, nn.Module):
    """Base of all decoders: latents (B, latent_channels, h, w) -> images (B, image_channels, h factor, w factor)."""

    kind = "decoder"
    package = "smalti.models"
    stand_ins = (nn.Module,)
    image_channels: int
    latent_channels: int
    factor: int

    @property
    @abstractmethod
    def last_layer(self) -> nn.Parameter:
        """The weight of the last convolution."""

    @abstractmethod
    def forward(self, latent: Tensor) -> Tensor:
        """Maps latents with shape (B, latent_channels, h, w) to images with shape (B, image_channels, H, W)."""
