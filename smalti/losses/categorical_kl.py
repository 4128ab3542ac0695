"""The categorical KL: how far the distribution over codes of each latent is from choosing all alike."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from smalti.losses import Loss
from smalti.losses._records import by_step, selected
from smalti.outputs import CodebookRecord


def categorical_kl(record: CodebookRecord) -> Tensor:
    """KL(q || uniform) = sum_k q_k log(K q_k) = log K - H(q) in nats, the mean over positions, a scalar.

    q = softmax(l) are the probabilities from which the quantizer draws, without noise and temperature (Jang et al.,
    arXiv:1611.01144; Ramesh et al., arXiv:2102.12092).

    Args:
        record: of a quantizer that draws codes by logits.

    Example:
        >>> import torch
        >>> from smalti.quantizers.gumbel import Gumbel
        >>> quantizer = Gumbel(size=4, channels=1)
        >>> _ = quantizer.logits.requires_grad_(False).weight.zero_(), quantizer.logits.bias.zero_()
        >>> categorical_kl(quantizer(torch.ones(1, 1, 2, 2))).item()
        0.0
    """
    assignment = record.soft_assignment(1.0)
    return math.log(assignment.mean_probability.shape[-1]) - assignment.entropy.mean()


class CategoricalKL(Loss):
    """:func:`categorical_kl` summed over codebooks (Ramesh et al., arXiv:2102.12092).

    The term's ``weight`` in a recipe is 5e-4 in taming-transformers; DALL-E raises it to 6.6 in a likelihood of sums.

    Args:
        only: names of the codebooks that count; None: all.
    """

    def __init__(self, *, only: Sequence[str] | None = None) -> None:
        super().__init__()
        self.only = only

    def forward(self, codebooks: Mapping[str, CodebookRecord]) -> Tensor:
        """A scalar of records with z of shape (B, d, h, w)."""
        values = [
            categorical_kl(record) for record in by_step(selected(codebooks, self.only, "categorical_kl")).values()
        ]
        return sum(values[1:], values[0])
