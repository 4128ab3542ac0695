"""The commitment loss: latents stay near the codes they chose."""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._records import Channels, RecordLoss, over_channels
from smalti.losses._reduction import reduce
from smalti.outputs import CodebookRecord


def commitment_loss(record: CodebookRecord, *, channels: Channels = "mean", reduction: Reduction = "mean") -> Tensor:
    """(z - sg q)^2 over the elements of latent z and quantized q, both with shape (B, d, h, w).

    Third term of equation 3 of van den Oord et al. (arXiv:1711.00937), whose weight beta is the term's ``weight`` in a
    recipe: 0.25 there, but 1 in latent-diffusion and taming-transformers, which put 0.25 on the codebook term. Its
    gradient reaches the encoder only.

    Args:
        record: of one codebook.
        channels: ``mean``, or ``sum`` over the channels of a token, which makes the loss d times larger: the unit of
            implementations that average squared distances of tokens.
        reduction: ``mean`` over all elements (so 1 / d of the mean squared distance of a token), ``sum``, ``batch_sum``
            (sum of each sample, mean over samples) or ``none`` with shape (B, d, h, w).

    Example:
        >>> import torch
        >>> z, q = torch.zeros(1, 1, 1, 2, requires_grad=True), torch.tensor([[[[1.0, 2.0]]]])
        >>> indices = torch.tensor([[[0, 1]]])
        >>> record = CodebookRecord(z=z, quantized=q, latent=q, codebook=q.view(2, 1), indices=indices)
        >>> commitment_loss(record).backward(); z.grad
        tensor([[[[-1., -2.]]]])
    """
    return reduce(over_channels((record.z - record.quantized.detach()).square(), channels), reduction=reduction)


class CommitmentLoss(RecordLoss):
    """:func:`commitment_loss` summed over codebooks (van den Oord et al., arXiv:1711.00937).

    Args:
        only: names of the codebooks that count; None: all.
        channels: ``mean`` or ``sum`` over the channels of a token.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    term = "commitment"

    def of(self, record: CodebookRecord) -> Tensor:
        """The loss of one record, a scalar, or with shape (B, d, h, w) unreduced."""
        return commitment_loss(record, channels=self.channels, reduction=self.reduction)
