"""Named codebooks side by side, each with its own way from the encoder: VQ-VAE, VQGAN, LlamaGen, FQGAN.

One is the mapping of length one, and there may be any number. The latent is the concatenation of the codebooks'
latents, and the tokens are stacked, in the order of the mapping.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks._adapter import Adapter, AdapterOptions
from smalti.nn.precision import full_precision
from smalti.outputs import BottleneckOutput, CodebookRecord
from smalti.quantizers import Quantizer


@dataclass(frozen=True, kw_only=True)
class Branch:
    """The way to one codebook.

    Args:
        quantizer: what gives codes to latents of its ``channels``.
        adapter: the branch in front of the 1x1 convolution into code space; None: that convolution alone.
        projection: whether that convolution is there; without it the width before it is that of a code.
    """

    quantizer: Quantizer
    adapter: AdapterOptions | None = None
    projection: bool = True


class Tokens(Bottleneck):
    """z_k = conv_k(adapter_k(features)) for each codebook k, quantized by itself (arXiv:1711.00937, 2411.16681).

    Adapters follow autocast; the convolution into code space and the quantizers run in at least float32.

    Args:
        in_channels: width of the features.
        codebooks: name -> its quantizer and the way to it; their order is that of the latent's channels and of the
            tokens. A quantizer of n steps fills n index planes, named ``<name>.0`` to ``<name>.<n - 1>``.
    """

    provides = frozenset({"indices", "codebooks"})

    def __init__(self, *, in_channels: Annotated[int, Field(ge=1)], codebooks: Mapping[str, Branch]) -> None:
        super().__init__()
        if not codebooks:
            raise ValueError("codebooks={}: expected at least one")
        if len({id(branch.quantizer) for branch in codebooks.values()}) < len(codebooks):
            raise ValueError("codebooks: two names share one quantizer, expected one of its own for each")
        self.in_channels = in_channels
        self.branches = nn.ModuleDict()
        for name, options in codebooks.items():
            if not name.isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(
                    f"codebooks: name {name!r}: expected letters, digits and '_', and no word that torch uses"
                )
            self.branches[name] = _Branch(name, in_channels, options)
        self.latent_channels = sum(self.codebook_channels.values())

    @property
    def codebook_sizes(self) -> Mapping[str, int]:
        """Index plane -> number of codes K, in order; planes are codebooks, or steps of one."""
        return {plane: quantizer.size for name, quantizer in self.quantizers() for plane in _planes(name, quantizer)}

    @property
    def codebook_channels(self) -> Mapping[str, int]:
        """Name -> width d of a code, in the order of the latent's channels."""
        return {name: quantizer.channels for name, quantizer in self.quantizers()}

    @property
    def codebook_terms(self) -> Mapping[str, frozenset[str]]:
        """Name -> short names of the losses over records that mean something for it."""
        return {name: quantizer.terms for name, quantizer in self.quantizers()}

    def quantizers(self) -> Iterator[tuple[str, Quantizer]]:
        """Name and quantizer of each codebook, in order."""
        for name, branch in self.branches.items():
            yield name, branch.quantizer  # type: ignore[misc]

    def forward(self, features: Tensor, noise: Tensor | None = None) -> BottleneckOutput:
        """Maps features (B, in_channels, h, w) to a latent (B, sum of d, h, w) and indices (B, G, h, w).

        G is the number of index planes.
        """
        records: dict[str, CodebookRecord] = {name: branch(features) for name, branch in self.branches.items()}
        planes = [record.indices if record.steps else record.indices.unsqueeze(1) for record in records.values()]
        return BottleneckOutput(
            latent=torch.cat([record.latent for record in records.values()], dim=1),
            indices=torch.cat(planes, dim=1),
            codebooks=records,
        )

    def lookup(self, indices: Tensor) -> Tensor:
        """The latent (B, sum of d, h, w) of tokens (B, G, h, w), G index planes."""
        sizes = self.codebook_sizes
        if indices.ndim != 4 or indices.shape[1] != len(sizes):
            shape = tuple(indices.shape)
            raise ValueError(
                f"indices with shape {shape}: expected (B, {len(sizes)}, h, w) for the codebooks {', '.join(sizes)}"
            )
        found, begin = [], 0
        for _, quantizer in self.quantizers():
            planes = indices[:, begin : begin + quantizer.depth]
            found.append(quantizer.lookup(planes if quantizer.depth > 1 else planes[:, 0]))
            begin += quantizer.depth
        return torch.cat(found, dim=1)

    def mean_latent(self) -> Tensor:
        """The mean code of each codebook, in at least float32, with shape (latent_channels,)."""
        return torch.cat([quantizer.mean() for _, quantizer in self.quantizers()])

    def update(self, records: Sequence[BottleneckOutput]) -> None:
        """Updates every codebook and its usage from the detached outputs of all micro-batches."""
        for name, quantizer in self.quantizers():
            quantizer.update([record.codebooks[name] for record in records])

    def usage(self) -> dict[str, Mapping[str, Tensor]]:
        """Index plane -> ``usage`` (fraction of codes chosen) and ``perplexity`` over the last updates, scalars."""
        return {
            plane: measured
            for name, quantizer in self.quantizers()
            for plane, measured in zip(_planes(name, quantizer), quantizer.usage(), strict=True)
            if measured
        }


def _planes(name: str, quantizer: Quantizer) -> list[str]:
    """Names of the index planes that a codebook fills."""
    return [name] if quantizer.depth == 1 else [f"{name}.{step}" for step in range(quantizer.depth)]


class _Branch(nn.Module):
    """Adapter, 1x1 convolution, quantizer."""

    def __init__(self, name: str, in_channels: int, options: Branch) -> None:
        super().__init__()
        self.adapter = None if options.adapter is None else Adapter(in_channels, options.adapter)
        width = in_channels if options.adapter is None else options.adapter.out_channels
        channels = options.quantizer.channels
        if not options.projection and width != channels:
            raise ValueError(
                f"codebooks.{name}: projection=False: expected quantizer.channels={channels} equal to the width {width}"
            )
        self.projection = nn.Conv2d(width, channels, 1) if options.projection else None
        self.quantizer = options.quantizer

    def forward(self, features: Tensor) -> CodebookRecord:
        """Quantizes features (B, in_channels, h, w)."""
        if self.adapter is not None:
            features = self.adapter(features)
        if self.projection is not None:
            with full_precision():
                features = self.projection(features.to(self.projection.weight.dtype))
        record: CodebookRecord = self.quantizer(features)
        return record
