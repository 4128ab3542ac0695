"""Anybody's tokenizer as one thing: images in, images out, and what stood between them with its bits.

Images are in [-1, 1] both ways. What an adapter adds to a network is a name, the pixels a latent position stands for,
and how many bits an image takes; the pass over images asks for nothing else.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from smalti.metrics import Observation
from smalti.metrics.bits_per_pixel import stored_bits
from smalti.nn.hashing import hash_of
from smalti.nn.padding import pad_to_multiple
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

    @abstractmethod
    def encode(self, images: Tensor) -> BottleneckOutput:
        """Images (B, C, H, W), sides divisible by ``factor``, to a latent and perhaps tokens."""

    @abstractmethod
    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C', h, w) to images (B, C, H, W)."""

    def see(self, images: Tensor, names: Sequence[str]) -> Observation:
        """What metrics see of images (B, C, H, W); the padding's tokens count, since they must be stored."""
        height, width = images.shape[-2:]
        dtype = next((weight.dtype for weight in self.parameters()), images.dtype)
        bottleneck = self.encode(pad_to_multiple(images.to(dtype), self.factor))
        made = self.decode(bottleneck.latent)[..., :height, :width]
        return Observation(
            target=images,
            reconstruction=made.to(images.dtype),
            bottleneck=bottleneck,
            codebook_sizes=self.codebook_sizes,
            bits=stored_bits(bottleneck, self.codebook_sizes),
        )

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

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Name -> number of codes, in the order of the tokens."""
        sizes: Mapping[str, int] = self.model.codebook_sizes
        return sizes

    @property
    def image_channels(self) -> int:
        """Channels of its images."""
        return int(getattr(self.model, "image_channels", 3))

    def encode(self, images: Tensor) -> BottleneckOutput:
        """Images (B, C, H, W) to a latent and tokens."""
        found: BottleneckOutput = self.model.encode(images)
        return found

    def decode(self, latent: Tensor) -> Tensor:
        """Latents (B, C', h, w) to images (B, C, H, W)."""
        found: Tensor = self.model.decode(latent)
        return found
