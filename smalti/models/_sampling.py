"""How a generator of tokens is sampled: guidance, its schedule over positions, and the loop with its caches.

Guidance (Ho & Salimans, arXiv:2207.12598): scores = nothing + scale (condition - nothing), where both are computed in
one batch and go on with the same codes. Scores are cooled, filtered and drawn from in float32 at least.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from smalti.models._condition import ClassPrefix, TextPrefix, prefix_mask
from smalti.nn.causal import KeyValues, caches_of
from smalti.nn.precision import at_least_float32
from smalti.nn.sampling import draw, filtered, uniforms
from smalti.registry import UserError, shown, suggest

Schedule = Literal["constant", "linear", "cosine"]
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "cosine")
COLDEST = 1e-30  # as cold as 0
Progress = Callable[[int, int], None]
Choose = Callable[[int, Tensor], Tensor]


class Drawn(Protocol):
    """What is asked of a model that is sampled; see :class:`smalti.models._token_model.TokenModel`."""

    codebooks: dict[str, int]
    condition: ClassPrefix | TextPrefix
    blocks: nn.ModuleList
    outputs: nn.ModuleList

    @property
    def positions(self) -> int:
        """Of the grid."""

    def table(self, device: torch.device) -> Tensor:
        """(cos, sin) of the prefix and the grid."""

    def embed(self, tokens: Tensor) -> Tensor:
        """What the trunk reads of tokens (B, G, n)."""

    def head_caches(self, batch: int) -> list[KeyValues]:
        """Memory for ``decode``."""

    def decode(self, features: Tensor, caches: Sequence[KeyValues], choose: Choose) -> None:
        """Has the codes of one position chosen."""


@dataclass(frozen=True, kw_only=True)
class SamplingOptions:
    """What a draw depends on beside the scores; see :meth:`TokenModel.sample`.

    Args:
        guidance: scale for all codebooks, or codebook -> scale, 1 for those that are not named.
        temperature: 0: the best code.
        top_k: codes that are drawn from; 0: all.
        top_p: probability of those that are drawn from.
        guidance_interval: first and last position that is guided; None: all.
        guidance_schedule: how the scale grows from 1 at the first position to its value at the last.
    """

    guidance: float | Mapping[str, float] = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    guidance_interval: tuple[int, int] | None = None
    guidance_schedule: Schedule = "constant"

    def __post_init__(self) -> None:
        """Refuses what is no such number.

        Raises:
            UserError: naming it.
        """
        for name, fits, expected in (
            ("temperature", _is_number(self.temperature) and self.temperature >= 0.0, "0 or more"),
            ("top_k", isinstance(self.top_k, int) and self.top_k >= 0, "a whole number, 0 or more"),
            ("top_p", _is_number(self.top_p) and 0.0 < self.top_p <= 1.0, "above 0, and at most 1"),
        ):
            if not fits:
                raise UserError(f"{name}={shown(getattr(self, name))}: expected {expected}")
        if self.guidance_schedule not in SCHEDULES:
            hint = suggest(str(self.guidance_schedule), SCHEDULES)
            raise UserError(f"guidance_schedule={shown(self.guidance_schedule)}{hint}")
        interval = self.guidance_interval
        if interval is not None and not (len(interval) == 2 and 0 <= interval[0] <= interval[1]):
            raise UserError(f"guidance_interval={shown(interval)}: expected the first and last position that is guided")

    def scales(self, codebooks: Sequence[str], positions: int) -> list[list[float]]:
        """The scale at each position, for each codebook.

        >>> SamplingOptions(guidance=3.0, guidance_schedule="linear").scales(["vq"], 3)
        [[1.0], [2.0], [3.0]]

        Raises:
            UserError: naming a codebook that is none, or a scale that is no number of at least 0.
        """
        given = self.guidance if isinstance(self.guidance, Mapping) else dict.fromkeys(codebooks, self.guidance)
        for name, scale in given.items():
            if name not in codebooks:
                raise UserError(f"guidance of {shown(name)}, no codebook of this model{suggest(str(name), codebooks)}")
            if not _is_number(scale) or scale < 0.0:
                raise UserError(f"guidance={shown(scale)}: expected a number, 0 or more")
        full = [float(given.get(name, 1.0)) for name in codebooks]
        first, last = self.guidance_interval or (0, positions - 1)
        return [
            [1.0 + (scale - 1.0) * self._share(position, positions) for scale in full]
            if first <= position <= last
            else [1.0] * len(full)
            for position in range(positions)
        ]

    def _share(self, position: int, positions: int) -> float:
        """The part of the guidance that a position gets."""
        along = position / (positions - 1) if positions > 1 else 1.0
        if self.guidance_schedule == "linear":
            return along
        return 1.0 if self.guidance_schedule == "constant" else (1.0 - math.cos(math.pi * along)) / 2.0

    def choose(self, scores: Tensor, uniform: Tensor) -> Tensor:
        """Codes (B,) from scores (B, K), and a number in [0, 1) for each."""
        if self.temperature == 0.0:
            return scores.argmax(dim=-1)
        # From the best down, so that the smallest temperature divides 0 there and nothing overflows.
        cooled = (scores - scores.amax(dim=-1, keepdim=True)) / max(self.temperature, COLDEST)
        return draw(filtered(cooled, self.top_k, self.top_p), uniform)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def sample_tokens(
    model: Drawn,
    condition: Tensor,
    seeds: Sequence[int],
    options: SamplingOptions,
    text_mask: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Tokens, int64 with shape (B, G, h w), drawn by a model in evaluation mode.

    Args:
        model: with its codebooks, grid and blocks.
        condition: labels (B,), or features of captions (B, T, text_width).
        seeds: one an image.
        options: of the draws.
        text_mask: which features of captions are no padding, with shape (B, T).
        progress: called with the number of positions done, and of all.

    Raises:
        UserError: if the scores of the first position are not finite.
    """
    batch, count, prefix = len(condition), model.positions, model.condition.length
    scales = options.scales(tuple(model.codebooks), count)
    guided = [position for position, scale in enumerate(scales) if any(value != 1.0 for value in scale)]
    if guided:  # the second half of the batch is told nothing
        condition = torch.cat([condition, model.condition.nothing(condition)])
        text_mask = None if text_mask is None else torch.cat([text_mask, text_mask])
    mask = None if text_mask is None else prefix_mask(text_mask.to(condition.device), prefix + count)
    numbers = uniforms(seeds, count, len(model.codebooks), condition.device)
    rows = len(condition)
    caches = caches_of(model.blocks, rows, prefix + count - 1)
    head = model.head_caches(rows)
    table = model.table(condition.device)
    tokens = torch.empty(batch, len(model.codebooks), count, dtype=torch.int64, device=condition.device)
    x = model.condition(condition)
    for position, scale in enumerate(scales):
        if guided and position > guided[-1]:  # nobody asks the second half any more
            x = x[:batch]
        start, end = (0, prefix) if position == 0 else (prefix + position - 1, prefix + position)
        seen = None if mask is None else mask[: len(x), :, start:end, :end]
        for block, cache in zip(model.blocks, caches, strict=True):
            x = block(x, table[start:end], seen, cache, start)

        def choose(number: int, features: Tensor, position: int = position, scale: Sequence[float] = scale) -> Tensor:
            scores = at_least_float32(model.outputs[number](_guided(features, scale[number], batch)))
            if position == 0 and not bool(scores.isfinite().all()):
                raise UserError(
                    "nothing can be drawn: the model's scores are not finite, its weights may hold nan or inf"
                )
            code = options.choose(scores, numbers[:, position, number])
            tokens[:, number, position] = code
            return code if len(features) == batch else code.repeat(2)

        model.decode(x[:, -1:], head, choose)
        chosen = tokens[:, :, position : position + 1]
        x = model.embed(chosen if len(x) == batch else chosen.repeat(2, 1, 1))
        if progress is not None:
            progress(position + 1, count)
    return tokens


def _guided(features: Tensor, scale: float, batch: int) -> Tensor:
    """Features (batch, width) of the first half, guided away from those of the second.

    Scores are linear in them, so that this is the guidance of scores with half the products.
    """
    told = features[:batch]
    if scale == 1.0:
        return told
    nothing = at_least_float32(features[batch:])
    return (nothing + (at_least_float32(told) - nothing) * scale).to(features.dtype)
