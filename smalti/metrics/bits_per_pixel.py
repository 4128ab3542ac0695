"""Bits per pixel: what an image takes to store, whatever stores it."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from smalti.metrics import Metric, Observation, Prediction
from smalti.outputs import BottleneckOutput
from smalti.registry import UserError

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


class BitsPerPixel(Metric):
    """Mean over images of bits / (H W) for images (B, C, H, W) (the rate of rate-distortion; Shannon et al., 1948).

    Bits are those of the tokens, log2 K each, of the numbers of a continuous latent by their type, or of a codec's
    files; nothing is entropy-coded. Of images that were made elsewhere it is not a number. Of a model that predicts
    tokens they are those of its predictions, -log2 p each, what an ideal entropy coder with this model would write;
    with several codebooks also ``bits_per_pixel/<codebook>``, which add up.
    """

    higher_is_better = False
    observes: ClassVar[frozenset[str]] = frozenset({"images", "tokens"})

    def create(self) -> "Accumulator":
        """An accumulator of means over images; ``compute()`` gives the number, and one for each predicted codebook."""
        from smalti.metrics._accumulators import NamedMeans

        return NamedMeans("bits_per_pixel")

    def begin(self, accumulator: "Accumulator", codebook_sizes: Mapping[str, int]) -> None:
        """Declares the codebooks: name -> number of codes K."""
        accumulator.declare([f"bits_per_pixel/{name}" for name in codebook_sizes])

    def update(self, accumulator: "Accumulator", observation: Observation | Prediction) -> None:
        """Adds a batch of images (B, C, H, W) or of predicted tokens (B, G, h, w)."""
        accumulator.update(self.per_image(observation))

    def per_image(self, observation: Observation | Prediction) -> dict[str, Tensor]:
        """``bits_per_pixel`` -> bits by pixels of each image, with shape (B,), and those of each predicted codebook.

        Raises:
            UserError: for predicted tokens of images whose size is not known.
        """
        if isinstance(observation, Prediction):
            return _predicted(observation)
        bits = (
            observation.bits
            if observation.bits is not None
            else stored_bits(observation.bottleneck, observation.codebook_sizes)
        )
        height, width = observation.target.shape[-2:]
        return {"bits_per_pixel": bits.double() / (height * width)}


def _predicted(prediction: Prediction) -> dict[str, Tensor]:
    if prediction.factor is None:
        raise UserError(
            "bits_per_pixel: these data do not say how many pixels a token stands for; bits_per_token needs none"
        )
    each = {name: bits.flatten(1).mean(dim=1) / prediction.factor**2 for name, bits in prediction.bits.items()}
    found = {"bits_per_pixel": torch.stack(list(each.values())).sum(dim=0)}
    return found | ({f"bits_per_pixel/{name}": bits for name, bits in each.items()} if len(each) > 1 else {})


def stored_bits(bottleneck: BottleneckOutput, codebook_sizes: Mapping[str, int]) -> Tensor:
    """What each image takes to store, with shape (B,): tokens times log2 K, or values times the bits of their type."""
    if bottleneck.indices is None:
        latent = bottleneck.latent
        each = float(latent[0].numel() * torch.finfo(latent.dtype).bits) if len(latent) else 0.0
        return torch.full((len(latent),), each, dtype=torch.float64, device=latent.device)
    indices = bottleneck.indices
    positions = math.prod(indices.shape[2:])
    each = positions * sum(math.log2(size) for size in codebook_sizes.values())
    return torch.full((len(indices),), each, dtype=torch.float64, device=indices.device)
