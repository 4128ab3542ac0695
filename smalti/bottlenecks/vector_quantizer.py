"""One codebook between encoder and decoder: VQ-VAE, VQGAN, LlamaGen."""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks._codebook import EMA, Codebook, Estimator, Revival, Start
from smalti.nn.precision import full_precision
from smalti.outputs import BottleneckOutput


class VectorQuantizer(Bottleneck):
    """A 1x1 convolution into code space, then the nearest row of a codebook (van den Oord et al., arXiv:1711.00937).

    Args:
        in_channels: width of the features.
        codebook_size: number of codes K.
        code_channels: width d of a code.
        projection: whether the 1x1 convolution is there; without it ``in_channels`` is ``code_channels``.
        normalize: compare and return unit vectors (cosine codes; Yu et al., arXiv:2110.04627).
        estimator: ``straight_through``, or ``gradient_copy`` with its ``codebook_gradient``.
        codebook_gradient: the decoder's gradient also reaches the chosen rows.
        init: rows from ``uniform`` U(-1/K, 1/K), from ``normal`` N(0, 1), or by ``kmeans`` of the latents of the first
            batch in training, before it is quantized (arXiv:2107.03312, III-C); normalised codes start as unit vectors.
        ema: learn the rows by moving averages, in ``update``, and not by gradients.
        revival: move dead codes onto current latents, in ``update``.
        usage_window: updates over which usage and perplexity are counted.
        name: the codebook's name in ``codebooks``.
    """

    provides = frozenset({"indices", "codebooks"})

    def __init__(
        self,
        *,
        in_channels: Annotated[int, Field(ge=1)],
        codebook_size: Annotated[int, Field(ge=1)],
        code_channels: Annotated[int, Field(ge=1)],
        projection: bool = True,
        normalize: bool = False,
        estimator: Estimator = "straight_through",
        codebook_gradient: bool = False,
        init: Start = "uniform",
        ema: EMA | None = None,
        revival: Revival | None = None,
        usage_window: Annotated[int, Field(ge=1)] = 100,
        name: str = "codebook",
    ) -> None:
        super().__init__()
        if not projection and in_channels != code_channels:
            raise ValueError(
                f"projection=False: expected in_channels={in_channels} equal to code_channels={code_channels}"
            )
        self.in_channels = in_channels
        self.latent_channels = code_channels
        self.name = name
        self.projection = nn.Conv2d(in_channels, code_channels, 1) if projection else None
        self.codebook = Codebook(
            codebook_size,
            code_channels,
            normalize=normalize,
            estimator=estimator,
            codebook_gradient=codebook_gradient,
            init=init,
            ema=ema,
            revival=revival,
            usage_window=usage_window,
        )

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """The codebook's name -> number of codes K."""
        return {self.name: self.codebook.size}

    @property
    def codebook_channels(self) -> Mapping[str, int]:
        """The codebook's name -> width d of a code."""
        return {self.name: self.codebook.channels}

    def forward(self, features: Tensor, noise: Tensor | None = None) -> BottleneckOutput:
        """Maps features (B, in_channels, h, w) to a latent (B, code_channels, h, w) and indices (B, 1, h, w)."""
        if self.projection is not None:
            with full_precision():
                features = self.projection(features.to(self.projection.weight.dtype))
        record = self.codebook(features)
        return BottleneckOutput(
            latent=record.latent, indices=record.indices.unsqueeze(1), codebooks={self.name: record}
        )

    def lookup(self, indices: Tensor) -> Tensor:
        """The latent (B, code_channels, h, w) of tokens (B, 1, h, w)."""
        if indices.ndim != 4 or indices.shape[1] != 1:
            raise ValueError(f"indices with shape {tuple(indices.shape)}: expected (B, 1, h, w)")
        return self.codebook.lookup(indices[:, 0])

    def mean_latent(self) -> Tensor:
        """The mean code, in at least float32, with shape (code_channels,)."""
        return self.codebook.mean()

    def update(self, records: Sequence[BottleneckOutput]) -> None:
        """Updates the codebook and its usage from the detached outputs of all micro-batches."""
        self.codebook.update([record.codebooks[self.name] for record in records])

    def usage(self) -> dict[str, dict[str, Tensor]]:
        """Name -> ``usage`` (fraction of codes chosen) and ``perplexity`` over the last updates, scalars."""
        return {self.name: self.codebook.usage()}
