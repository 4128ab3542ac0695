"""What losses over codebook records share: which records count, and the sum over them."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Literal

from torch import Tensor

from smalti.losses import Loss, Reduction
from smalti.losses._reduction import check_choice
from smalti.outputs import CodebookRecord
from smalti.registry import suggest

Channels = Literal["mean", "sum"]


def over_channels(values: Tensor, channels: Channels) -> Tensor:
    """values (B, d, h, w) as they are, or, for ``sum``, their sums over the channels of a token, (B, 1, h, w)."""
    return values.sum(dim=1, keepdim=True) if channels == "sum" else values


def selected(
    codebooks: Mapping[str, CodebookRecord], only: Sequence[str] | None, term: str
) -> dict[str, CodebookRecord]:
    """The records named by ``only``, all of them if it is None.

    Raises:
        ValueError: if a name is unknown, nothing is left, or ``term``, the short name of the loss, means nothing for
            one.
    """
    unknown = [name for name in only or () if name not in codebooks]
    if unknown:
        raise ValueError(f"only={list(only or ())}: no codebook {unknown[0]!r}{suggest(unknown[0], codebooks)}")
    chosen = {name: record for name, record in codebooks.items() if only is None or name in only}
    if not chosen:
        raise ValueError("codebooks={}: expected at least one record; a continuous bottleneck has none")
    for name, record in chosen.items():
        if term not in record.terms:
            fitting = ", ".join(f"{other!r}" for other in sorted(record.terms)) or "none"
            raise ValueError(
                f"{term} does not apply to the codebook {name!r}: its quantizer would not learn from it; losses over "
                f"codebooks that apply: {fitting}"
            )
    return chosen


def by_step(records: Mapping[str, CodebookRecord]) -> dict[str, CodebookRecord]:
    """The records, and of a quantizer of several steps those of its steps, named ``<name>.0`` and so on."""
    found: dict[str, CodebookRecord] = {}
    for name, record in records.items():
        found |= {f"{name}.{number}": step for number, step in enumerate(record.steps)} or {name: record}
    return found


def sum_over(
    codebooks: Mapping[str, CodebookRecord],
    only: Sequence[str] | None,
    term: str,
    loss: Callable[[CodebookRecord], Tensor],
) -> Tensor:
    """Sum of ``loss(record)`` over the selected records; all of one shape."""
    values = [loss(record) for record in by_step(selected(codebooks, only, term)).values()]
    total = values[0]
    for value in values[1:]:
        if value.shape != total.shape:
            raise ValueError("reduction='none': expected codebooks of one shape, a sum over them has no other meaning")
        total = total + value
    return total


class RecordLoss(Loss):
    """Base of the losses between the latents and the codes of each record, summed over codebooks.

    ``term`` is the short name of the loss, which a record must list among its ``terms``.

    Args:
        only: names of the codebooks that count; None: all.
        channels: ``mean`` or ``sum`` over the channels of a token.
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    term: ClassVar[str]

    def __init__(
        self, *, only: Sequence[str] | None = None, channels: Channels = "mean", reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        check_choice("channels", channels, Channels)
        check_choice("reduction", reduction, Reduction)
        self.only = only
        self.channels: Channels = channels
        self.reduction: Reduction = reduction

    @abstractmethod
    def of(self, record: CodebookRecord) -> Tensor:
        """The loss of one record, a scalar, or with shape (B, d, h, w) unreduced."""

    def forward(self, codebooks: Mapping[str, CodebookRecord]) -> Tensor:
        """A scalar, or (B, d, h, w) unreduced, of records with tensors of shape (B, d, h, w)."""
        return sum_over(codebooks, self.only, self.term, self.of)
