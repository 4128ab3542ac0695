"""Metrics: how good a reconstruction or a codebook is. Recipes name them; torchmetrics accumulates them."""

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import torch
from torch import Tensor

from smalti.outputs import BottleneckOutput, TokensOutput
from smalti.registry import Part

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


class Keeper(Protocol):
    """Keeps the features of real images."""

    def features(self, word: str, images: Tensor, compute: Callable[[], Tensor]) -> Tensor:
        """Features (B, d) of images (B, C, H, W), kept or computed, of the network and layer that ``word`` tells."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What a metric sees of one batch.

    Args:
        target: real images with shape (B, C, H, W) in [-1, 1].
        reconstruction: made images with shape (B, C, H, W), not clamped.
        bottleneck: what stood between them.
        codebook_sizes: name -> number of codes.
        bits: what each image takes to store, with shape (B,); None: what its tokens or the numbers of its latent take.
        ablations: codebook -> what makes the reconstruction (B, C, H, W) with that one at its mean code; of tokenizers
            with several that can decode them apart.
        kept: where features of real images are kept; None: nowhere.
    """

    target: Tensor
    reconstruction: Tensor
    bottleneck: BottleneckOutput
    codebook_sizes: Mapping[str, int]
    bits: Tensor | None = None
    ablations: Mapping[str, Callable[[], Tensor]] = field(default_factory=dict)
    kept: "Keeper | None" = None


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What a metric sees of one batch of tokens that a model predicted.

    Args:
        bits: codebook -> -log2 p of the token that was there, given those before it, in double precision with shape
            (B, h, w).
        factor: pixels per place along each side of the images that the tokens are of; None: not known.
    """

    bits: Mapping[str, Tensor]
    factor: int | None = None

    @classmethod
    def of(cls, output: TokensOutput, factor: int | None = None) -> "Prediction":
        """The bits of a model's logits (B, h, w, K) by codebook and the tokens (B, G, h, w) that were there."""
        planes = zip(output.logits.items(), output.indices.unbind(1), strict=True)
        bits = {
            name: torch.log_softmax(logits, dim=-1).gather(-1, codes.unsqueeze(-1)).squeeze(-1).double() / -math.log(2)
            for (name, logits), codes in planes
        }
        return cls(bits=bits, factor=factor)


class Metric(Part):
    """Base of all metrics: a light description; ``create`` imports torchmetrics and gives the accumulator.

    ``observes`` says of what: ``images``, an ``Observation``; ``tokens`` that a model predicts, a ``Prediction``.
    ``higher_is_better`` defines what "best" means when a recipe monitors the metric; None: it cannot be monitored.
    Images with a side below ``smallest_size`` are left out of it; of fewer images than ``fewest`` it says nothing. Its
    numbers begin with its short name, or with one of ``aliases`` where that would promise too much.
    """

    kind = "metric"
    package = "smalti.metrics"
    higher_is_better: bool | None = None
    smallest_size: int = 1
    fewest: ClassVar[int] = 1
    observes: ClassVar[frozenset[str]] = frozenset({"images"})
    aliases: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def create(self) -> "Accumulator":
        """A new torchmetrics accumulator; ``compute()`` gives one tensor or a flat mapping of names to tensors."""

    @abstractmethod
    def update(self, accumulator: "Accumulator", observation: Any) -> None:
        """Feeds one batch to the accumulator."""

    def begin(self, accumulator: "Accumulator", codebook_sizes: Mapping[str, int]) -> None:
        """Tells the accumulator, before the first batch, what every rank must count, even one without a batch."""

    def per_image(self, observation: Any) -> Mapping[str, Tensor]:
        """Name -> one value for each image, with shape (B,); empty for a metric of the whole set only.

        A metric that gives any accumulates these alone:
        its ``update`` is ``accumulator.update(self.per_image(observation))``.
        """
        return {}

    def warnings(self, accumulator: Any) -> tuple[str, ...]:
        """What to know beside the numbers of an accumulator whose ``compute()`` was called: sentences, or none."""
        return ()
