"""What losses between a student's and a teacher's feature vectors share."""

from collections.abc import Sequence

from torch import Tensor

from smalti.nn.unit import unit


def unit_vectors(student: Tensor, teacher: Tensor | Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Student and teacher as unit vectors, both with shape (B, W), the teacher's without a graph.

    Args:
        student: with shape (B, W).
        teacher: with shape (B, W), or an extractor's features, of which the last and deepest counts.

    Raises:
        ValueError: if the shapes are not (B, W) or differ.
    """
    deepest = teacher if isinstance(teacher, Tensor) else teacher[-1]
    if student.ndim != 2 or student.shape != deepest.shape:
        raise ValueError(
            f"student with shape {tuple(student.shape)}, teacher with shape {tuple(deepest.shape)}: expected (B, W) "
            "of one width; the head's width is the teacher's"
        )
    return unit(student), unit(deepest.detach().to(student.dtype))
