"""What all generators of tokens share: a prefix, a causal trunk over the positions of a grid, codebooks with names."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.models._condition import ClassPrefix, TextPrefix, prefix_mask
from smalti.models._sampling import Choose, Progress, SamplingOptions, Schedule, sample_tokens
from smalti.models._saved import SavedModel
from smalti.nn.causal import CausalBlock, KeyValues, Rate, RMSNorm
from smalti.nn.freezing import evaluating
from smalti.nn.packed import packed_linears
from smalti.nn.precision import at_least_float32
from smalti.nn.rotary import ClassPosition, grid_table
from smalti.nn.sizes import Positive
from smalti.outputs import Batch, TokensOutput
from smalti.registry import UserError

CodebookSizes = Mapping[str, Positive]
Side = Annotated[int, Field(ge=1, le=4096)]
INITIAL = 0.02  # deviation of all weights


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """Sizes and dropouts of a trunk, as the models hand them on; see :class:`smalti.models.gpt.GPT`."""

    width: int
    depth: int
    heads: int
    kv_heads: int | None
    hidden: int | None
    dropout: float
    ffn_dropout: float
    drop_path: float

    def blocks(self, depth: int, drop_path: float = 0.0) -> nn.ModuleList:
        """``depth`` blocks, whose drop path grows from 0 to ``drop_path``."""
        rates = [drop_path * number / max(depth - 1, 1) for number in range(depth)]
        sizes = (self.width, self.heads, self.kv_heads, self.hidden, self.dropout, self.ffn_dropout)
        return nn.ModuleList(CausalBlock(*sizes, rate) for rate in rates)


class TokenModel(SavedModel, library_name="smalti", tags=["image-generator"]):
    """Base of the generators of tokens: p(tokens of a grid | class or caption), one position after another.

    ``codebooks`` is name -> size in the order of the planes, ``grid`` height and width, ``num_classes`` 0 for a model
    without classes, ``text_length`` 0 for one without captions.
    """

    judged = None

    def __init__(
        self,
        codebooks: Mapping[str, int],
        grid: tuple[int, int],
        num_classes: int,
        trunk: Trunk,
        class_dropout: float,
        token_dropout: float,
        class_position: ClassPosition,
        text_width: int,
        text_length: int,
    ) -> None:
        super().__init__()
        if not codebooks:
            raise ValueError("codebooks={}: expected at least one, name: size")
        if (text_width > 0) != (text_length > 0) or (text_width and num_classes):
            raise ValueError(
                f"text_width={text_width}, text_length={text_length}, num_classes={num_classes}: expected both of a "
                "caption's numbers and no classes, or neither"
            )
        self.codebooks = dict(codebooks)
        self.grid = (grid[0], grid[1])
        self.num_classes, self.text_length = num_classes, text_length
        self.class_dropout, self.class_position = class_dropout, class_position
        self.head_width = trunk.width // trunk.heads
        self.condition = (
            TextPrefix(text_width, text_length, trunk.width) if text_width else ClassPrefix(num_classes, trunk.width)
        )
        self.embeddings = nn.ModuleList(nn.Embedding(size, trunk.width) for size in self.codebooks.values())
        self.token_dropout = nn.Dropout(token_dropout)
        self.blocks = trunk.blocks(trunk.depth, trunk.drop_path)
        self.norm = RMSNorm(trunk.width)
        self.outputs = nn.ModuleList(nn.Linear(trunk.width, size, bias=False) for size in self.codebooks.values())
        self._tables: dict[tuple[Any, ...], Tensor] = {}

    def _initialise(self) -> None:
        """N(0, 0.02) everywhere, biases 0, and outputs 0: a new model finds all codes equally likely."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=INITIAL)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        for output in self.outputs:
            nn.init.zeros_(output.weight)  # type: ignore[arg-type]

    @property
    def last_layer(self) -> nn.Parameter:
        """The weight of the last codebook's output, with shape (K, width)."""
        weight: nn.Parameter = self.outputs[-1].weight  # type: ignore[assignment]
        return weight

    @property
    def reads(self) -> frozenset[str]:
        """``indices``, and ``label`` or ``text`` of a model with classes or captions."""
        told = ({"label"} if self.num_classes else set()) | ({"text"} if self.text_length else set())
        return frozenset({"indices"} | told)

    @property
    def output_keys(self) -> Mapping[str, Collection[str]]:
        """The codebooks, in the logits."""
        return {"logits": tuple(self.codebooks)}

    @property
    def positions(self) -> int:
        """h w, the number of positions of the grid."""
        return self.grid[0] * self.grid[1]

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """What the trunk reads of tokens (B, G, n), with shape (B, n, width)."""

    @abstractmethod
    def scores(self, features: Tensor, tokens: Tensor) -> list[Tensor]:
        """Scores (B, n, K) of each codebook, from the trunk's features (B, n, width) of n positions and their tokens.

        Args:
            features: of positions, before the last norm.
            tokens: of the same positions, with shape (B, G, n); a codebook's scores depend on those before it only.
        """

    @abstractmethod
    def decode(self, features: Tensor, caches: Sequence[KeyValues], choose: Choose) -> None:
        """Has the codes of one position chosen, codebook by codebook.

        Args:
            features: of the position, with shape (B, 1, width), before the last norm.
            caches: what :meth:`head_caches` made.
            choose: from the number of a codebook and what its output reads (B, width) to codes (B,).
        """

    def head_caches(self, batch: int) -> list[KeyValues]:
        """Memory for :meth:`decode`, made once for all positions; none if there is no head."""
        return []

    def table(self, device: torch.device) -> Tensor:
        """(cos, sin) of the prefix and the grid, with shape (T + h w, d / 2, 2), in the precision of rotations."""
        grid, before = self.grid, self.condition.length
        return self._kept(
            "grid", device, lambda: grid_table(grid, self.head_width, before, self.class_position, device)
        )

    def _kept(self, name: str, device: torch.device, make: Any) -> Tensor:
        """A table of positions, made once: it is no buffer, so that checkpoints are what they are without it."""
        dtype = torch.float64 if self.norm.weight.dtype == torch.float64 else torch.float32
        if torch.compiler.is_compiling():
            table: Tensor = make().to(dtype)
            return table
        key = (name, dtype, device)
        if key not in self._tables:
            with torch.inference_mode(False):  # or training could not save it
                self._tables[key] = make().to(dtype)
        return self._tables[key]

    def training_forward(self, batch: Batch) -> TokensOutput:
        """Scores of all tokens of ``batch["indices"]`` (B, G, h, w), each from those before it.

        With classes ``batch["label"]`` (B,) is what they are of; with captions ``batch["text"]`` (B, T, text_width),
        and ``batch["text_mask"]`` (B, T), if there is one, which of its features are no padding.

        Raises:
            UserError: if a column is missing or does not fit.
        """
        indices: Tensor = batch["indices"]
        self._check(indices)
        given = batch.get("text") if self.text_length else batch.get("label") if self.num_classes else None
        condition = self.condition.check(given, len(indices))
        output: TokensOutput = self(indices, condition, batch.get("text_mask") if self.text_length else None)
        return output

    def forward(self, indices: Tensor, condition: Tensor, text_mask: Tensor | None = None) -> TokensOutput:
        """Scores of tokens (B, G, h, w).

        Args:
            indices: int64 with shape (B, G, h, w).
            condition: labels (B,), or features of captions (B, T, text_width).
            text_mask: which of those features are no padding, with shape (B, T); None: all.
        """
        if self.training and self.class_dropout > 0.0:
            condition = self.condition.forgotten(condition, self.class_dropout)
        tokens = indices.flatten(2)
        x = torch.cat([self.condition(condition), self.embed(tokens[:, :, :-1])], dim=1)
        x = self.token_dropout(x)
        mask = None if text_mask is None else prefix_mask(text_mask.to(x.device), x.shape[1])
        table = self.table(x.device)[: x.shape[1]]
        for block in self.blocks:
            x = block(x, table, mask)
        made = self.scores(x[:, self.condition.length - 1 :], tokens)
        named = zip(self.codebooks, made, strict=True)
        logits = {name: at_least_float32(scores).reshape(len(scores), *self.grid, -1) for name, scores in named}
        return TokensOutput(logits=logits, indices=indices)

    def sample(
        self,
        classes: Tensor | None = None,
        *,
        guidance: float | Mapping[str, float] = 1.0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
        guidance_interval: tuple[int, int] | None = None,
        guidance_schedule: Schedule = "constant",
        text: Tensor | None = None,
        text_mask: Tensor | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draws tokens, int64 with shape (B, G, h, w); dropout is off, and global random numbers are left alone.

        Args:
            classes: with shape (B,), exactly if the model has classes; ``num_classes`` asks for no class.
            guidance: 1: none; above, what fits the class better and varies less. One scale, or codebook -> scale, 1
                for those that are not named.
            temperature: of the softmax; 0: the best code, always.
            top_k: how many of the best codes are drawn from; 0: all.
            top_p: probability of the best codes that are drawn from; 1: all.
            seeds: one an image, on which its random numbers depend alone; None: 0, 1, ... B - 1.
            guidance_interval: first and last position that is guided, counted from 0; None: all.
            guidance_schedule: ``constant``, or ``linear`` or ``cosine`` from 1 at the first position to the full scale.
            text: features of captions (B, T, text_width), exactly if the model has captions.
            text_mask: which of those are no padding, with shape (B, T); None: all.
            progress: called with the number of positions done, and of all.

        Raises:
            UserError: naming what does not fit.
        """
        options = SamplingOptions(
            guidance=guidance,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            guidance_interval=guidance_interval,
            guidance_schedule=guidance_schedule,
        )
        given = text if self.text_length else classes
        batch = len(given) if given is not None else 1 if seeds is None else len(seeds)
        condition = self.condition.check(given, batch)
        seeds = range(batch) if seeds is None else seeds
        if len(seeds) != batch:
            raise UserError(f"{len(seeds)} seeds for {batch} images: expected one each")
        self._check_guidance(options)
        with evaluating(self), torch.inference_mode(), packed_linears(self, rows=batch):
            tokens = sample_tokens(self, condition, seeds, options, text_mask, progress)
        return tokens.clone().reshape(batch, -1, *self.grid)  # a copy that a training may use

    def _check_guidance(self, options: SamplingOptions) -> None:
        scales = options.scales(tuple(self.codebooks), self.positions)
        if not self.num_classes and not self.text_length and any(scale != 1.0 for row in scales for scale in row):
            raise UserError(
                f"guidance={options.guidance!r}: this model has neither classes nor captions to be guided by"
            )

    def _check(self, indices: Tensor) -> None:
        expected = (len(self.codebooks), *self.grid)
        if indices.ndim != 4 or tuple(indices.shape[1:]) != expected:
            raise UserError(f"indices have shape {tuple(indices.shape)}: expected (B, G, h, w) = (B, *{expected})")
        if indices.is_floating_point() or indices.dtype == torch.bool:
            raise UserError(f"indices are {indices.dtype}: expected whole numbers")
        if indices.device.type != "cpu" or torch.compiler.is_compiling():
            return
        for (name, size), plane in zip(self.codebooks.items(), indices.unbind(1), strict=True):
            if plane.numel() and not 0 <= int(plane.min()) <= int(plane.max()) < size:
                odd = plane[(plane < 0) | (plane >= size)][0]
                raise UserError(f"index {int(odd)} of the codebook {name!r}: expected 0 to {size - 1}")


__all__ = ["Choose", "CodebookSizes", "Rate", "Side", "TokenModel", "Trunk"]
