"""Rotary positions of a grid (Su et al., arXiv:2104.09864), half of the channels for the row and half for the column.

A position is a row of a table with pairs (cos, sin), by which adjacent channels are turned. What stands in front of the
grid, a class or a caption, has no cell. ``zeroed`` is what LlamaGen and FAR were trained with: cos and sin are both 0
there, so that the queries and keys of the prefix vanish, and all that attend to it do so with the score 0. ``rotated``
turns it by the angle 0, and leaves queries and keys as they are.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor

from smalti.nn.constants import constant
from smalti.nn.precision import at_least_float32

ClassPosition = Literal["zeroed", "rotated"]
BASE = 10000.0


def grid_table(
    grid: tuple[int, int],
    head_width: int,
    prefix: int = 1,
    class_position: ClassPosition = "zeroed",
    device: torch.device | None = None,
) -> Tensor:
    """The rows of ``prefix`` positions without a cell, then those of a grid, row by row.

    Args:
        grid: height and width.
        head_width: channels of a head, a multiple of 4.
        prefix: number of positions in front of the grid.
        class_position: what the rows of the prefix are.
        device: of the table.

    Returns:
        (cos, sin), float64 with shape (prefix + height width, head_width / 2, 2).

    Example:
        >>> grid_table((2, 2), 8, prefix=3).shape
        torch.Size([7, 4, 2])

    Raises:
        ValueError: if ``head_width`` is no multiple of 4.
    """
    height, width = grid
    cells = ((row, column) for row in range(height) for column in range(width))
    return cells_table(cells, head_width, prefix, class_position, device)


def cells_table(
    cells: Iterable[tuple[int, int]],
    head_width: int,
    prefix: int = 1,
    class_position: ClassPosition = "zeroed",
    device: torch.device | None = None,
) -> Tensor:
    """The rows of ``prefix`` positions without a cell, then those of the given cells.

    Args:
        cells: (row, column) of each.
        head_width: channels of a head, a multiple of 4.
        prefix: number of positions in front of them.
        class_position: what the rows of the prefix are.
        device: of the table.

    Returns:
        (cos, sin), float64 with shape (prefix + number of cells, head_width / 2, 2).

    Raises:
        ValueError: if ``head_width`` is no multiple of 4.
    """
    if head_width < 4 or head_width % 4:
        raise ValueError(
            f"a head has {head_width} channels: expected a multiple of 4, for pairs of rows and of columns"
        )
    half = head_width // 2
    device = device or torch.device("cpu")
    places = constant(tuple(cells), torch.float64, device).reshape(-1, 2)
    frequencies = BASE ** (-torch.arange(0, half, 2, dtype=torch.float64, device=device) / half)
    angles = (places[:, :, None] * frequencies).flatten(1)
    table = torch.stack([angles.cos(), angles.sin()], dim=-1)
    front = table.new_zeros(prefix, *table.shape[1:])
    if class_position == "rotated":
        front[..., 0] = 1.0
    return torch.cat([front, table])


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """Turns adjacent channels of ``x`` by the angles of a table, in float32 at least.

    Args:
        x: with shape (B, N, heads, d).
        table: (cos, sin) of N positions, with shape (N, d / 2, 2).

    Returns:
        the same shape and dtype as ``x``.

    Example:
        >>> x = torch.tensor([1.0, 0.0, 1.0, 0.0]).reshape(1, 1, 1, 4)
        >>> rotate(x, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])).flatten()
        tensor([0., 1., 1., 0.])
    """
    pairs = at_least_float32(x).reshape(*x.shape[:-1], -1, 2)
    if pairs.device.type == "cpu" and not torch.compiler.is_compiling():
        # One product of complex numbers in place of six of halves, which count when one position is drawn.
        product = torch.view_as_complex(pairs) * torch.view_as_complex(table.to(pairs.dtype))[:, None]
        return torch.view_as_real(product).flatten(-2).to(x.dtype)
    first, second = pairs.unbind(-1)
    cos, sin = table[:, None].unbind(-1)
    turned = torch.stack([first * cos - second * sin, second * cos + first * sin], dim=-1)
    return turned.flatten(-2).to(x.dtype)
