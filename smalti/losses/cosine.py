"""Distillation by direction: a student's vector points where the teacher's does."""

from collections.abc import Sequence

from torch import Tensor

from smalti.losses import Loss, Reduction
from smalti.losses._reduction import check_choice, reduce
from smalti.losses._teacher import unit_vectors


def cosine(student: Tensor, teacher: Tensor | Sequence[Tensor], *, reduction: Reduction = "mean") -> Tensor:
    """1 - cos(s_i, t_i) = 1 - s_i t_i / (|s_i| |t_i|), as in BEiT v2 (Peng et al., arXiv:2208.06366).

    Args:
        student: s with shape (B, W).
        teacher: t with shape (B, W), or an extractor's features, of which the last counts; it gets no gradient.
        reduction: ``mean`` over images, ``sum``, ``batch_sum`` (equal to ``mean`` here) or ``none`` with shape (B,).

    Example:
        >>> import torch
        >>> cosine(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]))
        tensor(0.2929)
    """
    s, t = unit_vectors(student, teacher)
    return reduce(1.0 - (s * t).sum(dim=1), reduction=reduction)


class Cosine(Loss):
    """:func:`cosine` of a feature head and a teacher (Peng et al., arXiv:2208.06366).

    In a recipe: ``inputs: {student: heads.<name>, teacher: teacher.<name>}``.

    Args:
        reduction: ``none``, ``mean``, ``sum`` or ``batch_sum`` (sum over pixels, mean over images).
    """

    def __init__(self, *, reduction: Reduction = "mean") -> None:
        super().__init__()
        check_choice("reduction", reduction, Reduction)
        self.reduction: Reduction = reduction

    def forward(self, student: Tensor, teacher: Tensor | Sequence[Tensor]) -> Tensor:
        """A scalar, or (B,) unreduced, of student and teacher vectors with shape (B, W)."""
        return cosine(student, teacher, reduction=self.reduction)
