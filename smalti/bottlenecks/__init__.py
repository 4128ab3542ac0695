"""Bottlenecks: what stands between encoder and decoder. They return what losses measure and compute no loss."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from smalti.outputs import BottleneckOutput
from smalti.registry import Part


class Bottleneck(Part, nn.Module):
    """Base of all bottlenecks; each owns the 1x1 convolution into its space.

    ``provides`` names the optional fields of its output that it fills: ``indices``, ``codebooks``, ``posterior``.
    ``in_channels`` is the width of what it takes, ``latent_channels`` of what it gives.
    """

    kind = "bottleneck"
    package = "smalti.bottlenecks"
    stand_ins = (nn.Module,)
    former: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("vector_quantizer", "factorized"), "'tokens', with codebooks: {NAME: {quantizer: {type: nearest, size: ...}}}"
    )
    provides: ClassVar[frozenset[str]] = frozenset()
    in_channels: int
    latent_channels: int

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Index plane -> number of codes K, in the order of ``indices``; empty for a continuous bottleneck."""
        return {}

    @property
    def codebook_terms(self) -> Mapping[str, frozenset[str]]:
        """Name -> short names of the losses over records that mean something for it."""
        return {}

    @property
    def codebook_channels(self) -> Mapping[str, int]:
        """Name -> width d of a code, in the order of the latent's channels; empty for a continuous bottleneck."""
        return {}

    @abstractmethod
    def forward(self, features: Tensor, noise: Tensor | None = None) -> BottleneckOutput:
        """Takes features with shape (B, in_channels, h, w); ``noise`` is used by bottlenecks that sample."""

    def lookup(self, indices: Tensor) -> Tensor:
        """The latent with shape (B, latent_channels, h, w) of tokens with shape (B, G, h, w)."""
        raise TypeError(f"{type(self).__name__} is continuous: it has no codes to look up")

    def mean_latent(self) -> Tensor:
        """The mean code of each codebook, in order, with shape (latent_channels,)."""
        raise TypeError(f"{type(self).__name__} is continuous: it has no codes to average")

    def usage(self) -> Mapping[str, Mapping[str, Tensor]]:
        """Codebook -> ``usage`` (fraction of codes chosen) and ``perplexity`` over the last updates, scalars."""
        return {}

    def update(self, records: Sequence[BottleneckOutput]) -> None:
        """Changes persistent state after a successful step, from the detached outputs of all its micro-batches."""
