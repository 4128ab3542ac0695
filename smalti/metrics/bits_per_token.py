"""Bits per token: how well a model of tokens predicts the next one, on data it never saw."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from smalti.metrics import Metric, Observation, Prediction

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


class BitsPerToken(Metric):
    """Mean of -log2 p(token) over places, codebooks and images (the cross-entropy of Shannon et al., 1948, in bits).

    What an ideal code takes for a token under the model; log2 K for one that knows nothing. With several codebooks also
    ``bits_per_token/<codebook>``. Of models that predict tokens (B, G, h, w), each from those before it.
    """

    higher_is_better = False
    observes: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def create(self) -> "Accumulator":
        """An accumulator of means over images; ``compute()`` gives the number, and one for each codebook."""
        from smalti.metrics._accumulators import NamedMeans

        return NamedMeans("bits_per_token")

    def begin(self, accumulator: "Accumulator", codebook_sizes: Mapping[str, int]) -> None:
        """Declares the codebooks: name -> number of codes K."""
        accumulator.declare([f"bits_per_token/{name}" for name in codebook_sizes])

    def update(self, accumulator: "Accumulator", observation: Observation | Prediction) -> None:
        """Adds a batch of predicted tokens (B, G, h, w)."""
        accumulator.update(self.per_image(observation))

    def per_image(self, observation: Observation | Prediction) -> dict[str, Tensor]:
        """``bits_per_token`` and ``bits_per_token/<codebook>`` -> mean bits of each image's tokens, with shape (B,)."""
        if not isinstance(observation, Prediction):
            raise ValueError("bits_per_token is of models that predict tokens, and these are images")
        each = {name: bits.flatten(1).mean(dim=1) for name, bits in observation.bits.items()}
        found = {"bits_per_token": torch.stack(list(each.values())).mean(dim=0)}
        return found | ({f"bits_per_token/{name}": bits for name, bits in each.items()} if len(each) > 1 else {})
