"""LlamaGen's GPT: tokens of one codebook, one position of the grid after another (Sun et al., arXiv:2406.06525)."""

from collections.abc import Sequence

from torch import Tensor

from smalti.models._token_model import Choose, CodebookSizes, Rate, Side, TokenModel, Trunk
from smalti.nn.causal import KeyValues
from smalti.nn.rotary import ClassPosition
from smalti.nn.sizes import Count, Layers, Positive


class GPT(TokenModel):
    """p(tokens | class or caption), a causal transformer with RMSNorm, SwiGLU and 2-D rotary positions.

    It reads the prefix and the tokens so far, and gives scores of the next one. All weights start as N(0, 0.02), those
    of the output as 0.

    Args:
        codebooks: name and size of the only codebook.
        grid: height and width of the tokens.
        num_classes: number of classes; 0: none.
        width: of the trunk.
        depth: number of its blocks.
        heads: of the attention; divides ``width`` into multiples of 4.
        kv_heads: heads of keys and values; divides ``heads``; None: as many.
        hidden: width inside the MLPs; None: 8/3 of ``width``, rounded up to a multiple of 256.
        class_dropout: probability of no class, or no caption, in training: what guidance needs.
        token_dropout: of what the trunk reads.
        dropout: of the output of attention.
        ffn_dropout: of the output of MLPs.
        drop_path: probability that a sample goes past a branch of the last block; it grows from 0 in the first.
        class_position: ``zeroed`` as all published weights are, or ``rotated``: see :mod:`smalti.nn.rotary`.
        text_width: channels of the features of captions; 0: none.
        text_length: number of those features.

    Example:
        >>> import torch
        >>> gpt = GPT(codebooks={"codebook": 16}, grid=(2, 3), num_classes=4, width=16, depth=1, heads=2, hidden=8)
        >>> batch = {"indices": torch.zeros(5, 1, 2, 3, dtype=torch.int64), "label": torch.arange(5) % 4}
        >>> gpt.training_forward(batch).logits["codebook"].shape
        torch.Size([5, 2, 3, 16])

    Raises:
        ValueError: if sizes do not fit each other.
    """

    def __init__(
        self,
        *,
        codebooks: CodebookSizes,
        grid: tuple[Side, Side] = (16, 16),
        num_classes: Count = 0,
        width: Positive = 768,
        depth: Layers = 12,
        heads: Positive = 12,
        kv_heads: Positive | None = None,
        hidden: Positive | None = None,
        class_dropout: Rate = 0.1,
        token_dropout: Rate = 0.1,
        dropout: Rate = 0.1,
        ffn_dropout: Rate = 0.1,
        drop_path: Rate = 0.0,
        class_position: ClassPosition = "zeroed",
        text_width: Count = 0,
        text_length: Count = 0,
    ) -> None:
        if len(codebooks) > 1:
            raise ValueError(f"codebooks {', '.join(codebooks)}: expected one; 'far' takes any number")
        trunk = Trunk(
            width=width,
            depth=depth,
            heads=heads,
            kv_heads=kv_heads,
            hidden=hidden,
            dropout=dropout,
            ffn_dropout=ffn_dropout,
            drop_path=drop_path,
        )
        super().__init__(
            codebooks, grid, num_classes, trunk, class_dropout, token_dropout, class_position, text_width, text_length
        )
        self._initialise()

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors with shape (B, n, width) of tokens (B, 1, n)."""
        vectors: Tensor = self.embeddings[0](tokens[:, 0])
        return vectors

    def scores(self, features: Tensor, tokens: Tensor) -> list[Tensor]:
        """Scores (B, n, K) from features (B, n, width)."""
        return [self.outputs[0](self.norm(features))]

    def decode(self, features: Tensor, caches: Sequence[KeyValues], choose: Choose) -> None:
        """Has the code of one position chosen, from features (B, 1, width)."""
        choose(0, self.norm(features[:, 0]))
