"""The entropy loss: every token sure of its code, all codes used on average."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from smalti.losses import Loss
from smalti.losses._records import by_step, selected
from smalti.nn.distributed import differentiable_mean
from smalti.nn.soft_assignment import Kernel, SoftAssignment
from smalti.outputs import CodebookRecord, LossValue


def entropy_terms(
    record: CodebookRecord, *, temperature: float = 0.01, eps: float = 1e-5, gather: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean entropy S of a token's soft assignment, and entropy A of the mean assignment, two scalars in nats.

    p_i = softmax_j(-|z_i - e_j|^2 / temperature), S = mean_i -sum_j p_ij log p_ij, P = mean_i p_i,
    A = -sum_j P_j log(P_j + eps) (Chang et al., arXiv:2202.04200; Yu et al., arXiv:2310.05737).

    Of binary codes (``lfq``, ``bsq``) that are measured in groups of bits, A is the sum over groups, an upper bound of
    the entropy of all bits together (subadditivity), as in BSQ (Zhao et al., arXiv:2406.07548) and Open-MAGVIT2 (Luo et
    al., arXiv:2409.04410). S is exact.

    Args:
        record: of one codebook, z with shape (B, d, h, w), and codebook with shape (K, d) or codes of bits.
        temperature: of the assignment, in units of squared distance.
        eps: inside the logarithm; with 16384 codes 1 / K is only six times larger.
        gather: whether P is averaged over ranks, which makes the loss that of the global batch.

    Example:
        >>> import torch
        >>> codebook = torch.tensor([[0.0], [1.0]])
        >>> z, indices = torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[0, 1]]])
        >>> record = CodebookRecord(z=z, quantized=z, latent=z, codebook=codebook, indices=indices)
        >>> [round(value.item(), 4) for value in entropy_terms(record)]
        [0.0, 0.6931]
    """
    return _terms(record.soft_assignment(temperature), eps, gather)


def _terms(assignment: SoftAssignment, eps: float, gather: bool) -> tuple[Tensor, Tensor]:
    mean = assignment.mean_probability
    mean = differentiable_mean(mean) if gather else mean
    return assignment.entropy.mean(dim=-1), -(mean * (mean + eps).log()).sum(dim=-1)


class Entropy(Loss):
    """sample_weight * S - codebook_weight * A of :func:`entropy_terms`, summed over codebooks (arXiv:2310.05737).

    The parts ``<codebook>.sample`` and ``<codebook>.average`` are S and A.

    Args:
        temperature: of the assignment, in units of squared distance.
        sample_weight: of the entropy of each token's assignment, which is lowered.
        codebook_weight: of the entropy of the mean assignment, which is raised.
        eps: inside the logarithm of the mean assignment.
        gather: whether the mean assignment is averaged over ranks.
        kernel: what computes the assignment to rows of a table, see :func:`smalti.nn.soft_assignment.soft_assign`; to
            codes of bits there is one way.
        only: names of the codebooks that count; None: all.
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "the mean assignment of its tokens"}

    def __init__(
        self,
        *,
        temperature: Annotated[float, Field(gt=0.0)] = 0.01,
        sample_weight: Annotated[float, Field(ge=0.0)] = 1.0,
        codebook_weight: Annotated[float, Field(ge=0.0)] = 1.0,
        eps: Annotated[float, Field(ge=0.0)] = 1e-5,
        gather: bool = False,
        kernel: Kernel = "auto",
        only: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature={temperature}: expected a positive number")
        self.temperature = temperature
        self.sample_weight, self.codebook_weight = sample_weight, codebook_weight
        self.eps = eps
        self.gather = gather
        self.kernel = kernel
        self.only = only

    def statistics(self) -> Mapping[str, str]:
        """The mean assignment, if its entropy counts."""
        return self.batch_statistics if self.codebook_weight else {}

    def forward(self, codebooks: Mapping[str, CodebookRecord]) -> LossValue:
        """The loss of records with z of shape (B, d, h, w), and codebooks of shape (K, d) or codes of bits."""
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for group in _of_one_shape(by_step(selected(codebooks, self.only, "entropy"))):
            records = list(group.values())
            assignment = type(records[0]).assign(records, self.temperature, self.kernel)
            sample, average = _terms(assignment, self.eps, self.gather)
            found |= dict(zip(group, zip(sample.unbind(), average.unbind(), strict=True), strict=True))
        values = [self.sample_weight * sample - self.codebook_weight * average for sample, average in found.values()]
        parts = {f"{name}.sample": sample.detach() for name, (sample, _) in found.items()}
        parts |= {f"{name}.average": average.detach() for name, (_, average) in found.items()}
        return LossValue(total=torch.stack(values).sum(), parts=parts)


def _of_one_shape(records: Mapping[str, CodebookRecord]) -> list[dict[str, CodebookRecord]]:
    """The records in groups that one call can serve."""
    groups: dict[Any, dict[str, CodebookRecord]] = {}
    for name, record in records.items():
        groups.setdefault(record.shape_of_codes, {})[name] = record
    return list(groups.values())
