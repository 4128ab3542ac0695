"""Cross-entropy of predicted tokens: how surprised a model of tokens is by the codes that were there."""

from collections.abc import Mapping
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.outputs import LossValue

_NOTHING = -100  # torch's own default: no code has this number


def cross_entropy(
    logits: Mapping[str, Tensor],
    indices: Tensor,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> Tensor:
    """mean_k mean -log p(code_k) in nats, over codebooks k and places: a scalar (arXiv:2411.16681, 2406.06525).

    Arguments and errors are those of :func:`by_codebook`.
    """
    found = by_codebook(logits, indices, label_smoothing=label_smoothing, ignore_index=ignore_index)
    return torch.stack(list(found.values())).mean()


def by_codebook(
    logits: Mapping[str, Tensor],
    indices: Tensor,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int | None = None,
) -> dict[str, Tensor]:
    """Codebook -> -log p(code) in nats, mean over places.

    Args:
        logits: codebook -> scores of its K codes before the softmax, with shape (B, h, w, K).
        indices: the codes that were there, int64 with shape (B, G, h, w), codebooks in the order of ``logits``.
        label_smoothing: share s of the target that is spread evenly over all K codes (Szegedy et al.,
            arXiv:1512.00567).
        ignore_index: places with this code do not count; None: all count.

    Returns:
        A scalar for each codebook; 0 for one whose places are all ignored.

    Raises:
        ValueError: for logits that are no mapping, or shapes that do not belong together.

    Example:
        >>> even = {"visual": torch.zeros(2, 4, 4, 8), "semantic": torch.zeros(2, 4, 4, 16)}
        >>> found = by_codebook(even, torch.zeros(2, 2, 4, 4, dtype=torch.int64))
        >>> {name: round(value.item(), 4) for name, value in found.items()}
        {'visual': 2.0794, 'semantic': 2.7726}
    """
    check_tokens(logits, indices)
    found = {}
    for plane, (name, scores) in enumerate(logits.items()):
        codes = indices[:, plane].flatten()
        summed = F.cross_entropy(
            scores.flatten(0, -2),
            codes,
            reduction="sum",
            label_smoothing=label_smoothing,
            ignore_index=_NOTHING if ignore_index is None else ignore_index,
        )
        count = codes.numel() if ignore_index is None else (codes != ignore_index).sum().clamp(min=1)
        found[name] = summed / count
    return found


def check_tokens(logits: Mapping[str, Tensor], indices: Tensor) -> None:
    """Whether logits (B, h, w, K) by codebook and indices (B, G, h, w) belong together.

    Raises:
        ValueError: saying what does not.
    """
    if not isinstance(logits, Mapping) or not logits:
        raise ValueError(f"logits={type(logits).__name__}: expected a mapping of codebooks to scores (B, h, w, K)")
    shape = tuple(indices.shape)
    if indices.ndim != 4 or shape[1] != len(logits):
        raise ValueError(f"indices with shape {shape}: expected (B, {len(logits)}, h, w) for {', '.join(logits)}")
    for name, scores in logits.items():
        if scores.ndim != 4 or tuple(scores.shape[:3]) != (shape[0], *shape[2:]):
            given, wanted = tuple(scores.shape), f"({shape[0]}, {shape[2]}, {shape[3]}, K)"
            raise ValueError(f"logits of {name!r} with shape {given}: expected {wanted} for indices {shape}")


class CrossEntropy(Loss):
    """:func:`cross_entropy` of predicted tokens (Bai et al., arXiv:2411.16681), with a part for each codebook.

    Args:
        label_smoothing: share of the target that is spread evenly over all codes.
        ignore_index: places with this code do not count; None: all count.
    """

    def __init__(
        self, *, label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing={label_smoothing}: expected a number from 0 up to, but not, 1")
        self.label_smoothing = label_smoothing
        self.ignore_index = ignore_index

    def statistics(self) -> Mapping[str, str]:
        """With ``ignore_index`` the mean is over the places that count, however many a micro-batch has."""
        return {} if self.ignore_index is None else {"": "the number of places that are not ignored"}

    def forward(self, logits: Mapping[str, Tensor], indices: Tensor) -> LossValue:
        """A scalar of logits (B, h, w, K) by codebook and codes (B, G, h, w), and one for each codebook."""
        found = by_codebook(logits, indices, label_smoothing=self.label_smoothing, ignore_index=self.ignore_index)
        parts = {name: value.detach() for name, value in found.items()}
        return LossValue(total=torch.stack(list(found.values())).mean(), parts=parts)
