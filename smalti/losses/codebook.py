"""The codebook loss: codes move to the latents that chose them."""

from torch import Tensor

from smalti.losses import Reduction
from smalti.losses._records import Channels, RecordLoss, over_channels
from smalti.losses._reduction import reduce
from smalti.outputs import CodebookRecord


def codebook_loss(record: CodebookRecord, *, channels: Channels = "mean", reduction: Reduction = "mean") -> Tensor:
    """(q - sg z)^2 over the elements of quantized q and latent z, both with shape (B, d, h, w).

    Second term of equation 3 of van den Oord et al. (arXiv:1711.00937). Its gradient reaches the codebook only.

    Args:
        record: of one codebook.
        channels: ``mean``, or ``sum`` over the channels of a token, which makes the loss d times larger: the unit of
            implementations that average squared distances of tokens.
        reduction: ``mean`` over all elements (so 1 / d of the mean squared distance of a token), ``sum``, ``batch_sum``
            (sum of each sample, mean over samples) or ``none`` with shape (B, d, h, w).

    Example:
        >>> import torch
        >>> codebook = torch.tensor([[1.0], [2.0]], requires_grad=True)
        >>> z, indices = torch.zeros(1, 1, 1, 2), torch.tensor([[[0, 1]]])
        >>> q = codebook[indices].permute(0, 3, 1, 2)
        >>> record = CodebookRecord(z=z, quantized=q, latent=q, codebook=codebook, indices=indices)
        >>> codebook_loss(record).item()
        2.5
    """
    return reduce(over_channels((record.quantized - record.z.detach()).square(), channels), reduction=reduction)


class CodebookLoss(RecordLoss):
    """:func:`codebook_loss` summed over codebooks (van den Oord et al., arXiv:1711.00937).

    Args:
        only: names of the codebooks that count; None: all.
        channels: ``mean`` or ``sum`` over the channels of a token.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    term = "codebook"

    def of(self, record: CodebookRecord) -> Tensor:
        """The loss of one record, a scalar, or with shape (B, d, h, w) unreduced."""
        return codebook_loss(record, channels=self.channels, reduction=self.reduction)
