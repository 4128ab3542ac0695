"""Contrastive distillation: a student's vector is nearer to its own image's teacher vector than to other images'."""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses._teacher import unit_vectors
from smalti.nn.distributed import all_gather, rank


def info_nce(
    student: Tensor, teacher: Tensor | Sequence[Tensor], *, temperature: float = 1.0, gather: bool = False
) -> Tensor:
    """-mean_i log(exp(cos(s_i, t_i) / T) / sum_j exp(cos(s_i, t_j) / T)), a scalar (van den Oord, arXiv:1807.03748).

    At T = 1, which FQGAN uses (arXiv:2411.16681), perfect agreement on 32 images is still 2.49 and chance 3.47; a
    batch of one image without ``gather`` has no negatives, and loss and gradient are 0.

    Args:
        student: s with shape (B, W).
        teacher: t with shape (B, W), or an extractor's features, of which the last counts; it gets no gradient.
        temperature: T.
        gather: whether the images of all ranks are negatives.

    Example:
        >>> info_nce(torch.eye(2), torch.eye(2)).item(), info_nce(torch.eye(2)[:1], torch.eye(2)[:1]).item()
        (0.31326..., 0.0)
    """
    if temperature <= 0:
        raise ValueError(f"temperature={temperature}: expected a positive number")
    s, t = unit_vectors(student, teacher)
    own = torch.arange(len(s), device=s.device)
    if gather:
        t, own = all_gather(t), own + rank() * len(s)
    return F.cross_entropy(s @ t.T / temperature, own)


class InfoNCE(Loss):
    """:func:`info_nce` of a feature head and a teacher (van den Oord et al., arXiv:1807.03748).

    In a recipe: ``inputs: {student: heads.<name>, teacher: teacher.<name>}``.

    Args:
        temperature: of the softmax; smaller makes near misses count more.
        gather: whether the images of all ranks are negatives; each rank must bring equally many.
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "the other images, which are its negatives"}

    def __init__(self, *, temperature: Annotated[float, Field(gt=0.0)] = 1.0, gather: bool = False) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: expected a positive number")
        self.temperature = temperature
        self.gather = gather

    def forward(self, student: Tensor, teacher: Tensor | Sequence[Tensor]) -> Tensor:
        """A scalar of student and teacher vectors with shape (B, W)."""
        return info_nce(student, teacher, temperature=self.temperature, gather=self.gather)
