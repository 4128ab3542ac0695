"""Several named codebooks side by side, each with its own way from the encoder: FQGAN with two or three, or any number.

LlamaGen is the case of one. The latent is the concatenation of the codebooks' latents, and the tokens are stacked, in
the order of the mapping.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks._adapter import Adapter, AdapterOptions
from smalti.bottlenecks._codebook import EMA, Codebook, Estimator, Revival, Start
from smalti.nn.precision import full_precision
from smalti.outputs import BottleneckOutput, CodebookRecord


@dataclass(frozen=True, kw_only=True)
class CodebookOptions:
    """Options of one of several codebooks.

    Args:
        codebook_size: number of codes K.
        code_channels: width d of a code.
        adapter: the branch in front of the 1x1 convolution to ``code_channels``; None: that convolution alone.
        normalize: compare and return unit vectors (cosine codes; Yu et al., arXiv:2110.04627).
        estimator: ``straight_through``, or ``gradient_copy`` with its ``codebook_gradient``.
        codebook_gradient: the decoder's gradient also reaches the chosen rows.
        init: rows from ``uniform`` U(-1/K, 1/K), from ``normal`` N(0, 1), or by ``kmeans`` of the first batch in
            training, before it is quantized.
        ema: learn the rows by moving averages and not by gradients.
        revival: move dead codes onto current latents.
        usage_window: updates over which usage and perplexity are counted.
    """

    codebook_size: Annotated[int, Field(ge=1)]
    code_channels: Annotated[int, Field(ge=1)]
    adapter: AdapterOptions | None = None
    normalize: bool = False
    estimator: Estimator = "straight_through"
    codebook_gradient: bool = False
    init: Start = "uniform"
    ema: EMA | None = None
    revival: Revival | None = None
    usage_window: Annotated[int, Field(ge=1)] = 100


class Factorized(Bottleneck):
    """Named codebooks side by side: z_k = conv_k(adapter_k(features)), each quantized by itself (arXiv:2411.16681).

    Adapters follow autocast; the convolution into code space and the codebooks run in at least float32.

    Args:
        in_channels: width of the features.
        codebooks: name -> options; their order is that of the latent's channels and of the tokens.
    """

    provides = frozenset({"indices", "codebooks"})

    def __init__(self, *, in_channels: Annotated[int, Field(ge=1)], codebooks: Mapping[str, CodebookOptions]) -> None:
        super().__init__()
        if not codebooks:
            raise ValueError("codebooks={}: expected at least one")
        self.in_channels = in_channels
        self.branches = nn.ModuleDict()
        for name, options in codebooks.items():
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(
                    f"codebooks: name {name!r}: expected letters, digits and '_', and no word that torch uses"
                )
            self.branches[name] = _Branch(in_channels, options)
        self.latent_channels = sum(self.codebook_channels.values())

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Name -> number of codes K, in order."""
        return {name: self._codebook(name).size for name in self.branches}

    @property
    def codebook_channels(self) -> Mapping[str, int]:
        """Name -> width d of a code, in the order of the latent's channels."""
        return {name: self._codebook(name).channels for name in self.branches}

    def _codebook(self, name: str) -> Codebook:
        return self.branches[name].codebook  # type: ignore[return-value]

    def forward(self, features: Tensor, noise: Tensor | None = None) -> BottleneckOutput:
        """Maps features (B, in_channels, h, w) to a latent (B, sum of d, h, w) and indices (B, G, h, w)."""
        records: dict[str, CodebookRecord] = {name: branch(features) for name, branch in self.branches.items()}
        return BottleneckOutput(
            latent=torch.cat([record.latent for record in records.values()], dim=1),
            indices=torch.stack([record.indices for record in records.values()], dim=1),
            codebooks=records,
        )

    def lookup(self, indices: Tensor) -> Tensor:
        """The latent (B, sum of d, h, w) of tokens (B, G, h, w)."""
        if indices.ndim != 4 or indices.shape[1] != len(self.branches):
            raise ValueError(
                f"indices with shape {tuple(indices.shape)}: expected (B, {len(self.branches)}, h, w) for the "
                f"codebooks {', '.join(self.branches)}"
            )
        return torch.cat([self._codebook(n).lookup(indices[:, g]) for g, n in enumerate(self.branches)], dim=1)

    def mean_latent(self) -> Tensor:
        """The mean code of each codebook, in at least float32, with shape (latent_channels,)."""
        return torch.cat([self._codebook(name).mean() for name in self.branches])

    def update(self, records: Sequence[BottleneckOutput]) -> None:
        """Updates every codebook and its usage from the detached outputs of all micro-batches."""
        for name in self.branches:
            self._codebook(name).update([record.codebooks[name] for record in records])

    def usage(self) -> dict[str, dict[str, Tensor]]:
        """Name -> ``usage`` (fraction of codes chosen) and ``perplexity`` over the last updates, scalars."""
        return {name: self._codebook(name).usage() for name in self.branches}


class _Branch(nn.Module):
    """Adapter, 1x1 convolution, codebook."""

    def __init__(self, in_channels: int, options: CodebookOptions) -> None:
        super().__init__()
        self.adapter = None if options.adapter is None else Adapter(in_channels, options.adapter)
        width = in_channels if options.adapter is None else options.adapter.out_channels
        self.projection = nn.Conv2d(width, options.code_channels, 1)
        self.codebook = Codebook(
            options.codebook_size,
            options.code_channels,
            normalize=options.normalize,
            estimator=options.estimator,
            codebook_gradient=options.codebook_gradient,
            init=options.init,
            ema=options.ema,
            revival=options.revival,
            usage_window=options.usage_window,
        )

    def forward(self, features: Tensor) -> CodebookRecord:
        """Quantizes features (B, in_channels, h, w)."""
        if self.adapter is not None:
            features = self.adapter(features)
        with full_precision():
            z = self.projection(features.to(self.projection.weight.dtype))
        record: CodebookRecord = self.codebook(z)
        return record
