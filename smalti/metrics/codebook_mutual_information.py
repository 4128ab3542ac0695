"""Mutual information between codebooks: are they disentangled, or do their tokens say the same?"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smalti.metrics import Metric, Observation
from smalti.metrics._codes import entropy

if TYPE_CHECKING:
    from torchmetrics import Metric as Accumulator


def mutual_information(first: Tensor, second: Tensor, counts: Tensor | None = None) -> Tensor:
    """I = H(a) + H(b) - H(a, b) in bits of tokens a and b of the same positions, a scalar, at least 0.

    Args:
        first: tokens, or kinds of tokens, int64 with shape (N,).
        second: the same of another codebook.
        counts: how often each row occurred, int64 with shape (N,); None: once.

    Example:
        >>> a = torch.tensor([0, 0, 1, 1])
        >>> mutual_information(a, a), mutual_information(a, torch.tensor([0, 1, 0, 1]))
        (tensor(1., dtype=torch.float64), tensor(0., dtype=torch.float64))
    """
    counts = torch.ones_like(first) if counts is None else counts
    if not len(first):
        return torch.zeros((), dtype=torch.float64, device=first.device)
    alone = [_totals(tokens, counts) for tokens in (first, second)]
    joint = _totals(first * (second.max() + 1) + second, counts)
    return (entropy(alone[0]) + entropy(alone[1]) - entropy(joint)).clamp(min=0.0)


def chance(first: Tensor, second: Tensor, counts: Tensor) -> Tensor:
    """:func:`mutual_information` after shuffling, a scalar: what so few tokens show of codebooks that share nothing.

    Arguments as there. The shuffle is always the same.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (tokens.cpu().repeat_interleave(counts.cpu()) for tokens in (first, second))
    return mutual_information(a, b[torch.randperm(len(b), generator=generator)]).to(first.device)


class CodebookMutualInformation(Metric):
    """I(a; b) = H(a) + H(b) - H(a, b) in bits per position, for each pair of codebooks (Shannon, 1948; Cover et al.).

    Gives ``codebook_mutual_information/<a>-<b>`` and, under ``codebook_mutual_information_chance/<a>-<b>``, what the
    same tokens give when they are shuffled: with fewer tokens than pairs of codes the estimate is far above 0 for
    independent codebooks, too, and only the difference tells. Nothing for fewer than two codebooks. Tokens:
    (B, G, h, w).
    """

    def create(self) -> "Accumulator":
        """An accumulator of the pairs of codes that occurred; ``compute()`` gives named numbers."""
        from smalti.metrics._accumulators import PairCounts

        return PairCounts(self.summarize)

    def begin(self, accumulator: "Accumulator", codebook_sizes: Mapping[str, int]) -> None:
        """Declares the pairs of codebooks, from name -> number of codes K."""
        accumulator.declare(codebook_sizes)

    def update(self, accumulator: "Accumulator", observation: Observation) -> None:
        """Counts the pairs of tokens of a batch, with shape (B, G, h, w)."""
        accumulator.update(observation.bottleneck.indices, observation.codebook_sizes)

    def summarize(self, pairs: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> dict[str, Tensor]:
        """Both numbers from ``<a>-<b>`` -> tokens a, tokens b and how often they occurred together, each (N,)."""
        own = {f"codebook_mutual_information/{name}": mutual_information(*of) for name, of in pairs.items()}
        return own | {f"codebook_mutual_information_chance/{name}": chance(*of) for name, of in pairs.items()}


def _totals(tokens: Tensor, counts: Tensor) -> Tensor:
    """How often each kind of token occurred."""
    kinds, where = torch.unique(tokens, return_inverse=True)
    return torch.zeros(len(kinds), dtype=torch.int64, device=tokens.device).index_add_(0, where, counts)
