"""FAR: tokens of several codebooks, one position after another and one codebook after another there (FQGAN).

Bai et al., "Factorized Visual Tokenization and Generation", arXiv:2411.16681.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from smalti.models._token_model import Choose, CodebookSizes, Rate, Side, TokenModel, Trunk
from smalti.nn.causal import KeyValues, caches_of
from smalti.nn.rotary import ClassPosition, cells_table
from smalti.nn.sizes import Count, Layers, Positive


class FAR(TokenModel):
    """p(tokens | class or caption): the trunk of ``gpt`` over positions, a small causal head over their codebooks.

    The trunk reads, of each position, one vector made of the embeddings of all its tokens. Its output at a position
    begins the head's sequence there, after which come the tokens of the position, codebook by codebook: the first
    codebook is predicted from the trunk's output, the second given the first, and so on. Any number of codebooks.

    Args:
        codebooks: name and size of each, in the order of the planes, in which they are drawn.
        grid: height and width of the tokens.
        num_classes: number of classes; 0: none.
        width: of trunk and head.
        depth: number of blocks of the trunk.
        head_depth: number of blocks of the head.
        heads: of the attention; divides ``width`` into multiples of 4.
        kv_heads: heads of keys and values; divides ``heads``; None: as many.
        hidden: width inside the MLPs; None: 8/3 of ``width``, rounded up to a multiple of 256.
        class_dropout: probability of no class, or no caption, in training: what guidance needs.
        token_dropout: of what the trunk reads.
        dropout: of the output of attention.
        ffn_dropout: of the output of MLPs.
        drop_path: probability that a sample goes past a branch of the trunk's last block; it grows from 0 in the first.
        class_position: ``zeroed`` as all published weights are, or ``rotated``: see :mod:`smalti.nn.rotary`.
        text_width: channels of the features of captions; 0: none.
        text_length: number of those features.

    Example:
        >>> sizes = {"codebooks": {"visual": 16, "semantic": 8}, "grid": (2, 3)}
        >>> far = FAR(**sizes, num_classes=4, width=16, depth=1, head_depth=1, heads=2, hidden=8)
        >>> batch = {"indices": torch.zeros(5, 2, 2, 3, dtype=torch.int64), "label": torch.arange(5) % 4}
        >>> {name: tuple(logits.shape) for name, logits in far.training_forward(batch).logits.items()}
        {'visual': (5, 2, 3, 16), 'semantic': (5, 2, 3, 8)}

    Raises:
        ValueError: if sizes do not fit each other.
    """

    def __init__(
        self,
        *,
        codebooks: CodebookSizes,
        grid: tuple[Side, Side] = (16, 16),
        num_classes: Count = 0,
        width: Positive = 1024,
        depth: Layers = 24,
        head_depth: Layers = 3,
        heads: Positive = 16,
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
        self.aggregation = nn.Linear(len(codebooks) * width, width)
        self.head = trunk.blocks(head_depth)
        self._initialise()

    def embed(self, tokens: Tensor) -> Tensor:
        """Vectors with shape (B, n, width) of tokens (B, G, n), those of the codebooks of a position together."""
        planes = zip(self.embeddings, tokens.unbind(1), strict=True)
        vectors: Tensor = self.aggregation(torch.cat([embedding(plane) for embedding, plane in planes], dim=-1))
        return vectors

    def head_table(self, device: torch.device) -> Tensor:
        """(cos, sin) of the codebooks of a position, with shape (G, d / 2, 2).

        The first has none, as a class has none; the next ones are, as in the original, the first cells of the grid.
        """
        cells = tuple(divmod(number, self.grid[1]) for number in range(len(self.codebooks) - 1))
        return self._kept("head", device, lambda: cells_table(cells, self.head_width, 1, self.class_position, device))

    def scores(self, features: Tensor, tokens: Tensor) -> list[Tensor]:
        """Scores (B, n, K) of each codebook, from features (B, n, width) and the tokens (B, G, n) that are there."""
        given = [
            embedding(plane) for embedding, plane in zip(self.embeddings[:-1], tokens[:, :-1].unbind(1), strict=True)
        ]
        x = torch.stack([features, *given], dim=2).flatten(0, 1)
        table = self.head_table(x.device)
        for block in self.head:
            x = block(x, table)
        codes = self.norm(x).unflatten(0, tuple(features.shape[:2])).unbind(2)
        return [output(code) for output, code in zip(self.outputs, codes, strict=True)]

    def head_caches(self, batch: int) -> list[KeyValues]:
        """Memory of the head for ``batch`` sequences of G codebooks; each position writes over the last one's."""
        return caches_of(self.head, batch, len(self.codebooks))

    def decode(self, features: Tensor, caches: Sequence[KeyValues], choose: Choose) -> None:
        """Has the codes of one position chosen, each given those before it; features (B, 1, width)."""
        x, table = features, self.head_table(features.device)
        for number in range(len(self.outputs)):
            for block, cache in zip(self.head, caches, strict=True):
                x = block(x, table[number : number + 1], None, cache, number)
            code = choose(number, self.norm(x[:, 0]))
            if number < len(self.outputs) - 1:
                x = self.embeddings[number](code)[:, None]
