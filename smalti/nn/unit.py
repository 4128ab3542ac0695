"""Unit vectors whose gradient is bounded: dividing by a length of 1e-12 would multiply a gradient by 1e12."""

from torch import Tensor
from torch.nn import functional as F

# Lengths below it are taken as it. Latents, codes and embeddings are of length 1e-2 to 1e3: for them nothing changes.
LEAST_LENGTH = 1e-4


def unit(vectors: Tensor, dim: int = 1) -> Tensor:
    """v / max(|v|, 1e-4) along ``dim``, vectors of any shape.

    The gradient g becomes (g - u (u g)) / |v|, and g / 1e-4 for vectors shorter than 1e-4, which come out shorter than
    1 (0 stays 0): at most 1e4 times as long, where a floor of 1e-12 lets a zero vector's gradient grow to 1e12.

    Example:
        >>> import torch
        >>> unit(torch.tensor([[3.0, 4.0], [0.0, 0.0], [2e-5, 0.0]]))
        tensor([[0.6000, 0.8000],
                [0.0000, 0.0000],
                [0.2000, 0.0000]])
    """
    return F.normalize(vectors, dim=dim, eps=LEAST_LENGTH)
