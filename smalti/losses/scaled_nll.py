r"""The negative log-likelihood of an image under a distribution whose scale is fixed, learned or solved for.

A sum of distances r is read as the exponent of a likelihood with log-scale s. latent-diffusion's reconstruction loss is
the case r = |x - y| + LPIPS with s = 0: a Laplace likelihood with LPIPS inside. LPIPS is added to every pixel, so its
weight is relative to the *mean* absolute error at any resolution; added once per image to the sum over pixels it would
count 1 / (C H W). With LPIPS inside the likelihood is no longer normalised: do not report it as bits per dimension.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.losses import Loss
from smalti.losses._comparison import ComparisonLoss
from smalti.losses._reduction import broadcast_weight, check_choice, check_same_shape, reduce
from smalti.outputs import LossValue

Likelihood = Literal["laplace", "gaussian", "latent-diffusion"]
Scale = Literal["fixed", "learned", "analytic"]
NLLReduction = Literal["mean", "batch_sum"]

# Names of the parts beside the distances.
RESERVED_PARTS = ("rec", "nll", "log_scale")
# A perfect reconstruction has no finite optimal scale; the analytic one stops at this mean distance.
LEAST_MEAN_DISTANCE = 1e-12


@dataclass(frozen=True)
class Distance:
    """One summand of the exponent.

    Args:
        loss: compares prediction with target per element (B, C, H, W) or per sample (B,) or (B, 1, 1, 1).
        weight: factor in front of it, >= 0.
    """

    loss: Loss
    weight: Annotated[float, Field(ge=0.0)] = 1.0


def scaled_nll(
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    distances: Mapping[str, Distance],
    likelihood: Likelihood = "laplace",
    log_scale: Tensor | float | None = 0.0,
    reduction: NLLReduction = "mean",
) -> LossValue:
    """The likelihood of :class:`ScaledNLL`, with the log-scale s given.

    Args:
        prediction: with shape (B, C, H, W).
        target: same shape.
        weight: (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W); multiplies the likelihood, is not divided out.
        distances: name -> distance; their weighted sum is r.
        likelihood: which density.
        log_scale: s; None stands for its optimum on this batch.
        reduction: ``mean`` over elements, or ``batch_sum``: sum over elements, mean over samples.

    Example:
        >>> from smalti.losses.l1 import L1
        >>> black, grey = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
        >>> value = scaled_nll(grey, black, distances={"l1": Distance(L1())}, log_scale=None)
        >>> expected = -torch.distributions.Laplace(black, 0.5).log_prob(grey).mean()
        >>> bool(torch.isclose(value.total, expected))
        True
    """
    check_same_shape(prediction, target)
    values = {name: _distance(name, item, prediction, target) for name, item in distances.items()}
    residual = torch.zeros_like(prediction)
    for name, item in distances.items():
        residual = residual + item.weight * values[name]
    if log_scale is None:
        scale = optimal_log_scale(residual, weight, likelihood)
    elif isinstance(log_scale, Tensor):
        scale = log_scale
    else:
        scale = torch.full((), log_scale, dtype=residual.dtype, device=residual.device)
    nll = _negative_log_density(residual, scale, likelihood)
    unweighted = reduce(nll, reduction=reduction)
    total = unweighted
    if weight is not None:
        total = reduce(nll, weight, reduction=reduction, weighting="mean_of_weighted")
    parts = {name: value.detach().mean() for name, value in values.items()}
    parts |= {"rec": residual.detach().mean(), "nll": unweighted.detach(), "log_scale": scale.detach()}
    return LossValue(total=total, parts=parts, unweighted=unweighted)


def optimal_log_scale(residual: Tensor, weight: Tensor | None, likelihood: Likelihood) -> Tensor:
    """The log-scale s, without gradient, that makes the likelihood of r with shape (B, C, H, W) greatest.

    s = log mean(r), or half of it for the Gaussian, whose r is a squared distance; the mean is weighted by ``weight``.
    It is the mean of this process and this micro-batch.
    """
    mean = reduce(residual.detach(), weight, reduction="mean", weighting="weighted_mean")
    log_mean = mean.clamp_min(LEAST_MEAN_DISTANCE).log()
    return 0.5 * log_mean if likelihood == "gaussian" else log_mean


def _negative_log_density(residual: Tensor, scale: Tensor, likelihood: Likelihood) -> Tensor:
    """-log p of each element with shape (B, C, H, W) in nats, for a 0-dim log-scale."""
    if likelihood == "gaussian":
        return 0.5 * residual * torch.exp(-2.0 * scale) + scale + 0.5 * math.log(2.0 * math.pi)
    nll = residual * torch.exp(-scale) + scale
    return nll + math.log(2.0) if likelihood == "laplace" else nll


def _distance(name: str, distance: Distance, prediction: Tensor, target: Tensor) -> Tensor:
    """The values of one distance, in a shape that broadcasts over (B, C, H, W)."""
    loss = distance.loss
    if isinstance(loss, ComparisonLoss):
        loss.check(prediction, target)
        values = loss.unreduced(prediction, target)
    else:
        values = loss(prediction, target)
    if not isinstance(values, Tensor) or values.ndim == 0:
        raise ValueError(
            f"distances.{name}: {type(loss).__name__} gave one number for the batch, expected one per element or per "
            f"sample; build it with reduction='none'"
        )
    return broadcast_weight(values, prediction)


class ScaledNLL(Loss):
    """-log p(target | prediction) with a scale (B-VAE: Rybkin et al., arXiv:2006.13202; LDM: arXiv:2112.10752).

    With r = sum_k weight_k distance_k per element, broadcast over (B, C, H, W), and s the logarithm of the scale:

    ==================== ====================================== ===============================================
    ``laplace``          r exp(-s) + s + log 2                  Laplace with scale b = exp(s), for r = abs(x - y)
    ``gaussian``         r exp(-2s) / 2 + s + log(2 pi) / 2     Gaussian with sigma = exp(s), for r = (x - y)^2
    ``latent-diffusion`` r exp(-s) + s                          ``laplace`` without its constant
    ==================== ====================================== ===============================================

    latent-diffusion calls s ``logvar``; it is the logarithm of a Laplace scale, and no optimizer ever held it.

    Args:
        distances: name -> distance and weight; the names are logged beside ``rec`` (the mean of r), ``nll`` (without
            sample weights) and ``log_scale``.
        likelihood: which density.
        scale: ``fixed`` at ``log_scale``; ``learned``: a parameter ``log_scale`` that starts there (no weight decay);
            ``analytic``: the best scale of each batch, without gradient, so that the loss follows log mean(r).
        log_scale: s, or where it starts.
        reduction: ``mean`` over elements, or ``batch_sum``: sum over elements, mean over samples, comparable with a KL.

    Example:
        >>> from smalti.losses.l1 import L1
        >>> loss = ScaledNLL(distances={"l1": Distance(L1())}, likelihood="latent-diffusion", reduction="batch_sum")
        >>> loss(torch.zeros(2, 3, 4, 4), torch.ones(2, 3, 4, 4)).total
        tensor(48.)
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "with `scale: analytic` the mean distance"}

    log_scale: nn.Parameter | None

    def __init__(
        self,
        *,
        distances: Mapping[str, Distance],
        likelihood: Likelihood = "laplace",
        scale: Scale = "fixed",
        log_scale: float = 0.0,
        reduction: NLLReduction = "mean",
    ) -> None:
        super().__init__()
        check_choice("likelihood", likelihood, Likelihood)
        check_choice("scale", scale, Scale)
        check_choice("reduction", reduction, NLLReduction)
        _check_distances(distances)
        if scale == "analytic" and log_scale != 0.0:
            raise ValueError(f"log_scale={log_scale}: expected 0 with scale='analytic', which solves for it")
        self.losses = nn.ModuleDict({name: distance.loss for name, distance in distances.items()})
        self.distances = dict(distances)
        self.likelihood: Likelihood = likelihood
        self.scale: Scale = scale
        self.initial_log_scale = log_scale
        self.reduction: NLLReduction = reduction
        self.log_scale = nn.Parameter(torch.tensor(float(log_scale))) if scale == "learned" else None

    def statistics(self) -> Mapping[str, str]:
        """The mean distance, if the scale is solved for."""
        return self.batch_statistics if self.scale == "analytic" else {}

    def forward(self, prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> LossValue:
        """The likelihood of ``target`` given ``prediction``, both with shape (B, C, H, W).

        ``weight`` is (B,), (B, 1, 1, 1), (B, 1, H, W) or (B, C, H, W) and multiplies the likelihood of each element.
        """
        log_scale: Tensor | float | None = self.initial_log_scale
        if self.scale == "analytic":
            log_scale = None
        elif self.log_scale is not None:
            log_scale = self.log_scale
        return scaled_nll(
            prediction,
            target,
            weight,
            distances=self.distances,
            likelihood=self.likelihood,
            log_scale=log_scale,
            reduction=self.reduction,
        )


def _check_distances(distances: Mapping[str, Distance]) -> None:
    if not distances:
        raise ValueError("distances={}: expected at least one distance")
    for name, distance in distances.items():
        if name in RESERVED_PARTS or "." in name:
            raise ValueError(f"distances.{name}: expected a name without dots that is not in {RESERVED_PARTS}")
        if distance.weight < 0.0:
            raise ValueError(f"distances.{name}.weight={distance.weight}: expected >= 0")
