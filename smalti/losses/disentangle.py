"""The disentanglement loss: codebooks say different things of the same place."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from smalti.losses import Loss
from smalti.losses._records import selected
from smalti.losses._reduction import check_choice
from smalti.nn.unit import unit
from smalti.outputs import CodebookRecord, LossValue

Mode = Literal["latent", "code"]


def cosines(first: Tensor, second: Tensor) -> Tensor:
    """cos = u v / (|u| |v|) over channels at each position: (B, d, h, w) twice to (B, h, w); see ``unit``.

    Example:
        >>> cosines(torch.ones(1, 2, 1, 1), torch.tensor([3.0, 0.0]).view(1, 2, 1, 1))
        tensor([[[0.7071]]])
    """
    if first.shape != second.shape:
        raise ValueError(f"shapes {tuple(first.shape)} and {tuple(second.shape)}: expected codes of one width")
    return (unit(first) * unit(second)).sum(dim=1)


def disentangle(first: CodebookRecord, second: CodebookRecord, *, mode: Mode = "latent") -> Tensor:
    """Mean of cos^2 between what two codebooks hand to the decoder (Bai et al., arXiv:2411.16681), a scalar.

    Args:
        first: of one codebook, with tensors of shape (B, d, h, w).
        second: of another one of the same d.
        mode: ``latent``: the estimator's output, so that the gradient goes to the encoder and, with
            ``straight_through``, never to the codebooks, as in the original; ``code``: to the encoder just so, and to
            the chosen rows of the codebooks as well.
    """
    return cosines(_value(first, mode), _value(second, mode)).square().mean()


def _value(record: CodebookRecord, mode: Mode) -> Tensor:
    if mode == "latent":
        return record.latent
    return record.quantized + (record.z - record.z.detach())


class Disentangle(Loss):
    """Mean of :func:`disentangle` over pairs of codebooks: mean cos^2 (Bai et al., arXiv:2411.16681).

    The part ``<first>-<second>`` is the mean of |cos| of a pair.

    Args:
        mode: ``latent`` or ``code``: whether the codebooks move as well.
        pairs: which pairs of names count; None: all.
    """

    def __init__(self, *, mode: Mode = "latent", pairs: Sequence[Sequence[str]] | None = None) -> None:
        super().__init__()
        check_choice("mode", mode, Mode)
        if pairs is not None and (not pairs or any(len(set(pair)) != 2 or len(pair) != 2 for pair in pairs)):
            raise ValueError(f"pairs={[list(pair) for pair in pairs]}: expected pairs of two different names")
        self.mode: Mode = mode
        self.pairs = pairs

    def forward(self, codebooks: Mapping[str, CodebookRecord]) -> LossValue:
        """The loss of records with tensors of shape (B, d, h, w), at least two of them."""
        pairs = list(combinations(codebooks, 2)) if self.pairs is None else [(one, two) for one, two in self.pairs]
        if not pairs:
            raise ValueError(f"codebooks {sorted(codebooks)}: expected at least two to disentangle")
        named = selected(codebooks, sorted({name for pair in pairs for name in pair}), "disentangle")
        losses, parts = [], {}
        for one, two in pairs:
            losses.append(disentangle(named[one], named[two], mode=self.mode))
            with torch.no_grad():
                parts[f"{one}-{two}"] = cosines(named[one].quantized, named[two].quantized).abs().mean()
        return LossValue(total=torch.stack(losses).mean(), parts=parts)
