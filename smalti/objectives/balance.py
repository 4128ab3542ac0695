"""The adaptive weight: how strongly the adversary may pull on the last layer (Esser et al., arXiv:2012.09841).

lambda = min(||grad_W L_ref|| / (||grad_W L_adv|| + eps), clamp), detached, with W the last layer's weight. Both
gradients are known at the judged images already; each is pushed through the last layer only.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from smalti.nn.distributed import all_reduce_mean
from smalti.registry import UserError


@dataclass(frozen=True, kw_only=True)
class Adaptive:
    """Options of an adaptive weight.

    Args:
        reference: names of the terms whose gradient it keeps up with, at their weights, without sample weights.
        eps: added to the adversarial norm. It is absolute: the balance fails for gradients of its size.
        clamp: largest factor, applied before the term's weight.
        reduce: ``mean`` averages the gradients over processes before the norm, so that n processes equal one;
            ``local`` lets each process find its own factor, as the originals do.
    """

    reference: Sequence[str]
    eps: float = 1e-4
    clamp: float = 1e4
    reduce: Literal["local", "mean"] = "mean"

    def __post_init__(self) -> None:
        if isinstance(self.reference, str) or not self.reference:
            raise ValueError(f"reference={self.reference!r}: expected a list of term names")
        if not (math.isfinite(self.eps) and self.eps >= 0.0):
            raise ValueError(f"eps={self.eps!r}: expected a number of at least 0")
        if not self.clamp > 0.0:
            raise ValueError(f"clamp={self.clamp!r}: expected a number above 0")
        if self.reduce not in ("local", "mean"):
            raise ValueError(f"reduce={self.reduce!r}: expected 'local' or 'mean'")


class Balance(NamedTuple):
    """A factor and what happened to it; 0-dim tensors, so that nothing waits for the device.

    Args:
        factor: the adaptive weight, 0 where it could not be computed.
        clamped: 1 if the ratio was above ``clamp``, else 0.
        skipped: True if one of the norms was not finite.
    """

    factor: Tensor
    clamped: Tensor
    skipped: Tensor


def balance(reference: Tensor, adversarial: Tensor, options: Adaptive) -> Balance:
    """The adaptive weight of two gradients of the last layer, any shape, equal shapes.

    >>> options = Adaptive(reference=["pixel"], eps=0.0, clamp=10.0)
    >>> balance(torch.tensor([3.0, 4.0]), torch.tensor([0.0, 2.0]), options).factor
    tensor(2.5000)
    """
    if options.reduce == "mean":
        reference, adversarial = all_reduce_mean(reference), all_reduce_mean(adversarial)
    numerator, denominator = norm(reference), norm(adversarial)
    skipped = ~(torch.isfinite(numerator) & torch.isfinite(denominator))
    ratio = numerator / (denominator + options.eps)
    # 0 / 0 when eps is 0 and both gradients vanish: nothing to keep up with
    factor = torch.where(skipped | ratio.isnan(), 0.0, ratio.clamp(max=options.clamp))
    return Balance(factor.detach(), (~skipped & (ratio > options.clamp)).to(factor.dtype), skipped)


def norm(gradient: Tensor) -> Tensor:
    """Euclidean norm in at least single precision, a scalar."""
    dtype = torch.promote_types(gradient.dtype, torch.float32)
    length: Tensor = torch.linalg.vector_norm(gradient, dtype=dtype)
    return length


def last_layer_gradient(judged: Tensor, at_judged: Tensor, last_layer: Tensor) -> Tensor:
    """grad_W of a loss with gradient ``at_judged`` at ``judged``, both (B, C, H, W); traverses the last layer only.

    Raises:
        UserError: if ``last_layer`` took no part in making ``judged``.
    """
    (gradient,) = torch.autograd.grad(
        judged, last_layer, grad_outputs=at_judged.to(judged.dtype), retain_graph=True, allow_unused=True
    )
    if gradient is None:
        raise UserError("the model's last_layer took no part in the judged output: the gradients cannot be balanced")
    return gradient


def check_last_layer(last_layer: Tensor) -> None:
    """Refuses a frozen last layer.

    Raises:
        UserError: if it does not require a gradient.
    """
    if not last_layer.requires_grad:
        raise UserError("the model's last layer is frozen: an adaptive weight needs its gradient; use a fixed weight")
