"""What flows between the parts: frozen dataclasses, the protocols of a model, and the diagonal Gaussian."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, get_type_hints

import torch
from torch import Tensor, nn

from smalti.nn.exporting import register_container
from smalti.nn.soft_assignment import Kernel, SoftAssignment, assign_codes

Batch = Mapping[str, Any]


def batch_size(batch: Batch) -> int:
    """How many items a batch has: the length of its first column (B, ...), whichever that is.

    >>> batch_size({"indices": torch.zeros(3, 2, 4, 4), "label": torch.zeros(3)})
    3
    """
    for column in batch.values():
        return len(column)
    return 0


CODE_TERMS = frozenset({"codebook", "commitment", "disentangle", "entropy"})  # losses over records of a learned table


@register_container
@dataclass(frozen=True)
class DiagonalGaussian:
    """A Gaussian with independent coordinates, the posterior of a KL autoencoder (Kingma & Welling, arXiv:1312.6114).

    Args:
        mean: with shape (B, C, h, w).
        logvar: logarithm of the variance, same shape.
    """

    mean: Tensor
    logvar: Tensor

    @classmethod
    def from_moments(cls, moments: Tensor) -> "DiagonalGaussian":
        """Splits ``moments`` with shape (B, 2 C, h, w) into mean and log-variance, the latter clamped to [-30, 20]."""
        mean, logvar = moments.chunk(2, dim=1)
        return cls(mean, logvar.clamp(-30.0, 20.0))

    @property
    def std(self) -> Tensor:
        """Standard deviation with shape (B, C, h, w)."""
        return torch.exp(0.5 * self.logvar)

    @property
    def var(self) -> Tensor:
        """Variance with shape (B, C, h, w)."""
        return torch.exp(self.logvar)

    def sample(self, noise: Tensor | None = None) -> Tensor:
        """mean + std * noise, with shape (B, C, h, w); standard normal noise is drawn if none is given."""
        return self.mean + self.std * (torch.randn_like(self.mean) if noise is None else noise)

    def mode(self) -> Tensor:
        """The most likely value, the mean, with shape (B, C, h, w)."""
        return self.mean

    def kl(self, other: "DiagonalGaussian | None" = None) -> Tensor:
        """KL(self || other) in nats summed over each sample, with shape (B,); ``other`` defaults to N(0, I)."""
        if other is None:
            terms = self.mean.square() + self.var - 1.0 - self.logvar
        else:
            shift = (self.mean - other.mean).square() / other.var
            terms = shift + self.var / other.var - 1.0 - self.logvar + other.logvar
        return 0.5 * terms.flatten(1).sum(dim=1)

    def nll(self, value: Tensor, dims: tuple[int, ...] = (1, 2, 3)) -> Tensor:
        """-log density of ``value`` with shape (B, C, h, w) in nats, summed over ``dims``."""
        terms = math.log(2.0 * math.pi) + self.logvar + (value - self.mean).square() / self.var
        return 0.5 * terms.sum(dim=dims)

    def detach(self) -> "DiagonalGaussian":
        """The same distribution without its graph."""
        return DiagonalGaussian(self.mean.detach(), self.logvar.detach())


@register_container
@dataclass(frozen=True, kw_only=True)
class CodebookRecord:
    """What one quantizer did to one batch; the losses measure it.

    Args:
        z: what was quantized, after any normalisation, with shape (B, d, h, w).
        quantized: the chosen codes, with gradient to whatever is learned of them, with shape (B, d, h, w).
        latent: the estimator's output that goes on to the decoder, with shape (B, d, h, w).
        indices: chosen codes, int64 with shape (B, h, w), or (B, depth, h, w) of a quantizer of several steps; -1 where
            z is not finite, and the latent nan there.
        codebook: all codes in the same normalisation as ``z``, differentiable, with shape (K, d); None where they are
            not listed.
        terms: short names of the losses over records that mean something for it.
        steps: the records of the steps of a quantizer that has several; losses measure them in its place.
    """

    by_distance: ClassVar[bool] = True  # whether the nearest code is chosen, so that scales of z and codes must agree

    z: Tensor
    quantized: Tensor
    latent: Tensor
    indices: Tensor
    codebook: Tensor | None = None
    terms: frozenset[str] = CODE_TERMS
    steps: "tuple[CodebookRecord, ...]" = ()

    def __init_subclass__(cls) -> None:
        """Registers a subclass as a container too."""
        register_container(cls)

    @property
    def tokens(self) -> Tensor:
        """``z`` as a list of positions, with shape (B h w, d)."""
        return self.z.permute(0, 2, 3, 1).reshape(-1, self.z.shape[1])

    @property
    def shape_of_codes(self) -> Any:
        """What records have in common that :meth:`assign` may measure together."""
        rows = None if self.codebook is None else self.codebook.shape
        return type(self), self.z.shape, rows, self.z.dtype, self.z.device

    def soft_assignment(self, temperature: float, kernel: Kernel = "auto") -> SoftAssignment:
        """How sure its N = B h w positions are of their codes: logits -|z - e_j|^2 / temperature.

        Args:
            temperature: positive, in units of squared distance.
            kernel: what computes it, see :func:`smalti.nn.soft_assignment.soft_assign`.

        Raises:
            ValueError: if its codes give no such thing.
        """
        found = self.assign([self], temperature, kernel)
        return SoftAssignment(
            indices=found.indices[0],
            log_partition=found.log_partition[0],
            entropy=found.entropy[0],
            mean_probability=found.mean_probability[0],
        )

    @classmethod
    def assign(cls, records: "Sequence[CodebookRecord]", temperature: float, kernel: Kernel = "auto") -> SoftAssignment:
        """:meth:`soft_assignment` of G records of one shape, each result with G in front.

        Raises:
            ValueError: if their codes give no such thing.
        """
        rows = [record.codebook for record in records if record.codebook is not None]
        if len(rows) < len(records):
            raise ValueError("its codes are not listed: it has no soft assignment")
        z = torch.stack([record.tokens for record in records])
        return assign_codes(z, torch.stack(rows), temperature=temperature, kernel=kernel)


@register_container
@dataclass(frozen=True, kw_only=True)
class BottleneckOutput:
    """What a bottleneck returns; it computes no loss.

    Args:
        latent: what the decoder receives and what is stored, with shape (B, C, h, w).
        indices: tokens, int64 with shape (B, G, h, w) for G codebooks, or None; -1 where there is no code, since what
            was to be quantized is not finite.
        codebooks: name -> record, in the order of the recipe; empty for a continuous bottleneck.
        posterior: the Gaussian over latents, or None.
    """

    latent: Tensor
    indices: Tensor | None = None
    codebooks: Mapping[str, CodebookRecord] = field(default_factory=dict)
    posterior: DiagonalGaussian | None = None


@register_container
@dataclass(frozen=True, kw_only=True)
class AutoencoderOutput:
    """One training pass of an autoencoder.

    Args:
        reconstruction: with shape (B, C, H, W), in the range of the images, not clamped.
        bottleneck: what the bottleneck returned.
        heads: name -> prediction of a feature head, with shape (B, width).
    """

    reconstruction: Tensor
    bottleneck: BottleneckOutput
    heads: Mapping[str, Tensor] = field(default_factory=dict)


@register_container
@dataclass(frozen=True, kw_only=True)
class GeneratorOutput:
    """One training pass of an image generator.

    Args:
        images: with shape (B, C, H, W) in [-1, 1].
        latents: what they were made from, with shape (B, ...).
    """

    images: Tensor
    latents: Tensor


@register_container
@dataclass(frozen=True, kw_only=True)
class TokensOutput:
    """One training pass of a model that predicts tokens, G codebooks at each position of a grid.

    Args:
        logits: codebook -> scores of its K codes before the softmax, float32 with shape (B, h, w, K): at a position,
            those of the token there, made from what comes before it.
        indices: the tokens that were there, int64 with shape (B, G, h, w), codebooks in the order of ``logits``.
    """

    logits: Mapping[str, Tensor]
    indices: Tensor


@register_container
@dataclass(frozen=True, kw_only=True)
class DiscriminatorOutput:
    """What a discriminator says of a batch of images.

    Args:
        logits: with shape (B, ...): one per sample, or a map of patches.
        features: activations of its layers, first to last, each with shape (B, C, h, w).
    """

    logits: Tensor
    features: tuple[Tensor, ...] = ()


@register_container
@dataclass(frozen=True, kw_only=True)
class LossValue:
    """A loss with parts worth logging.

    Args:
        total: the loss, a scalar.
        parts: name -> scalar, reported under the term's name.
        unweighted: the loss without the sample weights, a scalar: the reference of an adaptive weight.
    """

    total: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)
    unweighted: Tensor | None = None


def output_type(model: Any) -> Any:
    """The annotation of what the model's ``training_forward`` returns; None if there is none.

    Args:
        model: a model's class, or a model.
    """
    try:
        return get_type_hints(model.training_forward).get("return")
    except (AttributeError, NameError, TypeError):
        return None


def predicts_tokens(model: Any) -> bool:
    """Whether a model, or its class, is one of tokens: its ``training_forward`` returns a :class:`TokensOutput`."""
    kind = output_type(model)
    return isinstance(kind, type) and issubclass(kind, TokensOutput)


class TrainableModel(Protocol):
    """What the engine and the objectives ask of any model.

    ``judged`` names the output field that an adversary judges; ``last_layer`` is the weight that makes it.
    """

    judged: ClassVar[str | None]

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last layer, where gradients are balanced."""

    def training_forward(self, batch: Batch) -> Any:
        """One training pass over ``batch`` (``image``: (B, C, H, W) in [-1, 1]); returns a frozen dataclass."""
