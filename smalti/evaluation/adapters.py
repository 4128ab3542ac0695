"""Anybody's tokenizer as one thing: images in, images out, and what stood between them with its bits.

Images are in [-1, 1] both ways. What an adapter adds to a network is a name, the pixels a latent position stands for,
and how many bits an image takes; the pass over images asks for nothing else.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from smalti.evaluation._returns import decoded, encoded
from smalti.metrics import Observation
from smalti.metrics.bits_per_pixel import stored_bits
from smalti.metrics.evaluation import observe
from smalti.nn.hashing import hash_of
from smalti.outputs import BottleneckOutput


class Adapter(nn.Module):
    """Base of all that can be evaluated.

    ``name`` is what the results call it, ``origin`` what it was opened from, and ``factor`` the pixels of a latent
    position along a side; ``codebook_sizes`` says the number of codes of each index plane, empty without tokens.
    """

    name: str
    origin: str
    factor: int = 1

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Name -> number of codes, in the order of the tokens."""
        return {}

    @property
    def image_channels(self) -> int:
        """Channels of its images."""
        return 3

    @abstractmethod
    def see(self, images: Tensor, names: Sequence[str]) -> Observation:
        """What metrics see of images with shape (B, C, H, W) in [-1, 1], called ``names``; with ``bits`` (B,)."""

    def fingerprint(self) -> Mapping[str, Any]:
        """What tells it from others of its name: the hash of its weights, its class, its options."""
        return {}


class Coder(Adapter):
    """Base of the adapters with an encoder and a decoder.

    Sizes that ``factor`` does not divide are padded right and bottom, by reflection, and cut back.
    """

    @property
    def network(self) -> Any:
        """What may be able to decode codebooks apart."""
        return self

    @abstractmethod
    def encode(self, images: Tensor) -> BottleneckOutput:
        """Images (B, C, H, W), sides divisible by ``factor``, to a latent and perhaps tokens."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C', h, w) to images (B, C, H, W)."""

    def see(self, images: Tensor, names: Sequence[str]) -> Observation:
        """What metrics see of images (B, C, H, W); the padding's tokens count, since they must be stored."""
        dtype = next((weight.dtype for weight in self.parameters()), images.dtype)
        seen = observe(self, images, dtype, self.network)
        return replace(seen, bits=stored_bits(seen.bottleneck, self.codebook_sizes))

    def fingerprint(self) -> Mapping[str, Any]:
        """The hash of all tensors, in the order of their names."""
        return {"weights_sha256": hash_of(self.state_dict())}


class Ours(Coder):
    """A tokenizer of smalti, or whatever has its ``encode``, ``decode``, ``factor`` and ``codebook_sizes``.

    Args:
        model: the network.
        name: what results call it.
        origin: where it is from.
    """

    def __init__(self, model: nn.Module, name: str, origin: str) -> None:
        super().__init__()
        self.model: Any = model
        self.name, self.origin = name, origin
        self.factor = int(model.factor)  # type: ignore[arg-type]
        self._shape: tuple[int, ...] = ()

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Name -> number of codes, in the order of the tokens."""
        sizes: Mapping[str, int] = self.model.codebook_sizes
        return sizes

    @property
    def image_channels(self) -> int:
        """Channels of its images."""
        return int(getattr(self.model, "image_channels", 3))

    @property
    def network(self) -> Any:
        """The network itself."""
        return self.model

    def encode(self, images: Tensor) -> BottleneckOutput:
        """Images (B, C, H, W) to a latent and tokens."""
        self._shape = tuple(images.shape)
        return encoded(self.model.encode(images), len(self.codebook_sizes), self.name)

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C', h, w) to images (B, C, H, W), of the shape that was encoded last."""
        return decoded(self.model.decode(latent), self._shape, self.name)
