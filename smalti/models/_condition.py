"""What a generator of tokens is told before the first token: nothing, a class, or a caption."""

import torch
from torch import Tensor, nn

from smalti.nn.sizes import check_classes
from smalti.registry import UserError


class ClassPrefix(nn.Module):
    """One position with the embedding of a class; the last row stands for no class, the only one without classes.

    Args:
        num_classes: number of classes.
        width: of a vector.
    """

    length = 1

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.table = nn.Embedding(num_classes + 1, width)

    def check(self, labels: Tensor | None, batch: int) -> Tensor:
        """Classes (batch,) as this model takes them; those of none without classes.

        Raises:
            UserError: if they are missing, or given where there are none, or no such classes.
        """
        if (labels is None) != (self.num_classes == 0):
            given = "missing" if labels is None else "given"
            raise UserError(f"classes are {given}: this model has num_classes={self.num_classes}")
        if labels is None:
            return torch.full((batch,), self.num_classes, device=self.table.weight.device)
        if tuple(labels.shape) != (batch,):
            raise UserError(f"classes have shape {tuple(labels.shape)}: expected ({batch},)")
        # The row of no class may be asked for: what is drawn so is like all classes together.
        check_classes(labels, self.num_classes + 1)
        return labels.to(self.table.weight.device)

    def nothing(self, labels: Tensor) -> Tensor:
        """The labels (B,) of no class, as many."""
        return torch.full_like(labels, self.num_classes)

    def forgotten(self, labels: Tensor, rate: float) -> Tensor:
        """``labels`` (B,), each the label of no class with probability ``rate``."""
        forgets = torch.rand(len(labels), device=labels.device) < rate
        return torch.where(forgets, self.num_classes, labels)

    def forward(self, labels: Tensor) -> Tensor:
        """Vectors with shape (B, 1, width) of labels (B,)."""
        vectors: Tensor = self.table(labels)[:, None]
        return vectors


class TextPrefix(nn.Module):
    """Features of a caption (B, T, text_width), each mapped by an MLP with tanh-GELU; ``null`` stands for no caption.

    Args:
        text_width: channels of a feature.
        text_length: T, the number of positions in front of the tokens.
        width: of a vector.
    """

    def __init__(self, text_width: int, text_length: int, width: int) -> None:
        super().__init__()
        self.length, self.text_width = text_length, text_width
        # A buffer, and not learned: the original never trains it.
        self.register_buffer("null", torch.randn(text_length, text_width) * text_width**-0.5)
        layers = [nn.Linear(text_width, width, bias=False), nn.Linear(width, width, bias=False)]
        self.projection = nn.Sequential(layers[0], nn.GELU(approximate="tanh"), layers[1])

    def check(self, text: Tensor | None, batch: int) -> Tensor:
        """Features (batch, T, text_width) as this model takes them.

        Raises:
            UserError: if they are missing or of another shape.
        """
        if text is None:
            raise UserError("text is missing: this model is conditioned on features of captions")
        expected = (batch, self.length, self.text_width)
        if tuple(text.shape) != expected:
            raise UserError(f"text has shape {tuple(text.shape)}: expected {expected}")
        return text.to(self.get_buffer("null"))

    def nothing(self, text: Tensor) -> Tensor:
        """The features of no caption with the shape of ``text``."""
        return self.get_buffer("null").expand_as(text)

    def forgotten(self, text: Tensor, rate: float) -> Tensor:
        """``text`` (B, T, text_width), each caption that of none with probability ``rate``."""
        forgets = torch.rand(len(text), 1, 1, device=text.device) < rate
        return torch.where(forgets, self.get_buffer("null"), text)

    def forward(self, text: Tensor) -> Tensor:
        """Vectors with shape (B, T, width) of features (B, T, text_width)."""
        vectors: Tensor = self.projection(text)
        return vectors


def prefix_mask(text_mask: Tensor, length: int) -> Tensor:
    """What each position may see if captions are padded, boolean with shape (B, 1, length, length).

    A position sees itself, and what is not later and no padding.

    Args:
        text_mask: which features (B, T) are of the caption; false: padding.
        length: of the whole sequence, T and more.

    Example:
        >>> prefix_mask(torch.tensor([[False, True]]), 3)[0, 0].int().tolist()
        [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    seen = torch.ones(len(text_mask), length, dtype=torch.bool, device=text_mask.device)
    seen[:, : text_mask.shape[1]] = text_mask.bool()
    square = torch.ones(length, length, dtype=torch.bool, device=text_mask.device)
    mask = (square.tril() & seen[:, None]) | torch.eye(length, dtype=torch.bool, device=text_mask.device)
    return mask[:, None]
