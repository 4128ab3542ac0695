"""Weighted hinge: the hinge pair in which samples count as much as their weights say."""

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses._reduction import WEIGHTS, Weighting, check_choice, reduce, weight_statistics


def weighted_hinge_generator(
    logits_fake: Tensor, weight: Tensor | None = None, *, weighting: Weighting = "weighted_mean"
) -> Tensor:
    """-sum(w f) / sum(w) of logits f.

    Args:
        logits_fake: with shape (B, ...).
        weight: w, with shape (B,), (B, 1, ..., 1) or that of the logits; None weighs all alike.
        weighting: ``weighted_mean`` divides by the sum of weights, ``mean_of_weighted`` by the number of logits.

    Example:
        >>> import torch
        >>> weighted_hinge_generator(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0]))
        tensor(-3.)
    """
    return reduce(-logits_fake, weight, weighting=weighting)


def weighted_hinge_discriminator(
    logits_real: Tensor,
    logits_fake: Tensor,
    weight: Tensor | None = None,
    *,
    weighting: Weighting = "weighted_mean",
) -> Tensor:
    """sum(w relu(1 - r)) / sum(w) + sum(w relu(1 + f)) / sum(w), arguments as of the generator's side.

    Example:
        >>> import torch
        >>> real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.0])
        >>> weighted_hinge_discriminator(real, fake, torch.tensor([3.0, 1.0]))
        tensor(0.5000)
    """
    real, fake = F.relu(1.0 - logits_real), F.relu(1.0 + logits_fake)
    return reduce(real, weight, weighting=weighting) + reduce(fake, weight, weighting=weighting)


class _WeightedHinge(Loss):
    """What both players share.

    Args:
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
    """

    batch_statistics = WEIGHTS

    def __init__(self, *, weighting: Weighting = "weighted_mean") -> None:
        super().__init__()
        check_choice("weighting", weighting, Weighting)
        self.weighting: Weighting = weighting

    def statistics(self) -> Mapping[str, str]:
        """The sum of the weights, if the mean is divided by it."""
        return weight_statistics(self.weighting)


class WeightedHingeGenerator(_WeightedHinge):
    """Generator loss, L = -sum(w f) / sum(w) of logits f (B, ...) (cf. Rombach et al., arXiv:2112.10752).

    Bind the weights: ``inputs: {weight: batch.weights}``.

    Args:
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
    """

    phase = "generator"

    def forward(self, logits_fake: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, ...) under ``weight`` with shape (B,)."""
        return weighted_hinge_generator(logits_fake, weight, weighting=self.weighting)


class WeightedHingeDiscriminator(_WeightedHinge):
    """Discriminator loss, L = sum(w relu(1 - r)) / sum(w) + sum(w relu(1 + f)) / sum(w), logits (B, ...).

    As latent-diffusion's ``hinge_d_loss_with_exemplar_weights`` (Rombach et al., arXiv:2112.10752), which has half of
    it: ``weight: 0.5``. Bind the weights: ``inputs: {weight: batch.weights}``.

    Args:
        weighting: divide by the sum of weights (``weighted_mean``) or by the elements (``mean_of_weighted``).
    """

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor, weight: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of logits with shape (B, ...) under ``weight`` with shape (B,)."""
        return weighted_hinge_discriminator(logits_real, logits_fake, weight, weighting=self.weighting)
