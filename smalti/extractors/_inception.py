"""The network of Inception-v3 as the FID knows it, by tables: what each block's branches are made of.

It is the graph that Google published in December 2015, not the one that torchvision trains: 1008 classes, average
pools that leave the padding out, and a maximum instead of an average in the last block.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 1008
SPATIAL_CHANNELS = 7
BATCH_NORM_EPS = 1e-3

Layer = Literal["64", "192", "768", "spatial", "2048", "logits_unbiased"]
Pool = Literal["average", "max", "halve"]


class Unit(NamedTuple):
    """A convolution with its name in the file, its output channels, kernel (height, width) and stride."""

    name: str
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1


Branch = Sequence[Unit | tuple[Unit, Unit]]  # a pair takes the same input, and its outputs are put side by side


class ConvUnit(nn.Module):
    """Convolution without bias, normalisation, ReLU; the size stays unless it halves, which is done without padding.

    Args:
        in_channels: width of what it takes.
        unit: what it is.
        padded: whether the border is padded so that the size stays.
    """

    def __init__(self, in_channels: int, unit: Unit, *, padded: bool = True) -> None:
        super().__init__()
        height, width = unit.kernel
        padding = (height // 2, width // 2) if padded and unit.stride == 1 else (0, 0)
        self.conv = nn.Conv2d(in_channels, unit.channels, unit.kernel, unit.stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(unit.channels, eps=BATCH_NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, channels, h', w')."""
        return F.relu(self.bn(self.conv(x)))


class Mixed(nn.Module):
    """Branches side by side over the same input, the last of them begins with a pool.

    Args:
        in_channels: width of what it takes.
        branches: chains of convolutions.
        pool: of 3 x 3: ``average`` without the padding or ``max``, which keep the size, or ``halve``, the maximum of
            every second place.
        pooled: the convolution behind the pool; None: the pool alone.
    """

    def __init__(self, in_channels: int, branches: Sequence[Branch], pool: Pool, pooled: Unit | None = None) -> None:
        super().__init__()
        self.branches = branches
        self.pool = pool
        self.pooled = pooled
        self.channels = in_channels if pooled is None else pooled.channels
        for branch in branches:
            width = in_channels
            for step in branch:
                width = self._add(width, step)
            self.channels += width
        if pooled is not None:
            self._add(in_channels, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, channels, h', w')."""
        last = _pool(x, self.pool)
        if self.pooled is not None:
            last = self.get_submodule(self.pooled.name)(last)
        return torch.cat([*(self.branch(x, branch) for branch in self.branches), last], dim=1)

    def branch(self, x: Tensor, branch: Branch) -> Tensor:
        """What one of the branches makes of x with shape (B, in_channels, h, w)."""
        for step in branch:
            x = torch.cat([self.get_submodule(unit.name)(x) for unit in _units(step)], dim=1)
        return x

    def _add(self, in_channels: int, step: Unit | tuple[Unit, Unit]) -> int:
        """Makes the convolutions of one step, and gives the width of what comes out."""
        units = _units(step)
        for unit in units:
            self.add_module(unit.name, ConvUnit(in_channels, unit))
        return sum(unit.channels for unit in units)


class Inception(nn.Module):
    """Inception-v3 for the FID (Szegedy et al., arXiv:1512.00567): images (B, 3, H, W), about in [-1, 1], to features.

    The names of its weights are those of the published file.
    """

    def __init__(self) -> None:
        super().__init__()
        width = 3
        for unit, padded in _STEM:
            self.add_module(unit.name, ConvUnit(width, unit, padded=padded))
            width = unit.channels
        for name, branches, pool, pooled in _blocks():
            block = Mixed(width, branches, pool, pooled)
            self.add_module(name, block)
            width = block.channels
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """Layer -> feature (B, D) of prepared images (B, 3, H, W), at least 75 x 75; the rest is not computed."""
        found: dict[str, Tensor] = {}
        for name, value in self._steps(x):
            if name in layers:
                found[name] = value
            if len(found) == len(layers):
                break
        return found

    def _steps(self, x: Tensor) -> Iterator[tuple[Layer, Tensor]]:
        """The layers, shallow to deep."""
        for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
            x = self.get_submodule(name)(x)
        x = F.max_pool2d(x, 3, 2)
        yield "64", x.mean(dim=(2, 3))
        for name in ("Conv2d_3b_1x1", "Conv2d_4a_3x3"):
            x = self.get_submodule(name)(x)
        x = F.max_pool2d(x, 3, 2)
        yield "192", x.mean(dim=(2, 3))
        before_6d = x
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e"):
            before_6d = x if name == "6d" else before_6d
            x = self.get_submodule(f"Mixed_{name}")(x)
        yield "768", x.mean(dim=(2, 3))
        first = self.get_submodule("Mixed_6d.branch1x1")(before_6d)[:, :SPATIAL_CHANNELS]
        yield "spatial", first.permute(0, 2, 3, 1).flatten(1)  # channels last, as the stored moments have them
        for name in ("7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{name}")(x)
        pooled = x.mean(dim=(2, 3))
        yield "2048", pooled
        yield "logits_unbiased", F.linear(pooled, self.fc.weight)


_STEM = (
    (Unit("Conv2d_1a_3x3", 32, (3, 3), 2), False),
    (Unit("Conv2d_2a_3x3", 32, (3, 3)), False),
    (Unit("Conv2d_2b_3x3", 64, (3, 3)), True),
    (Unit("Conv2d_3b_1x1", 80), False),
    (Unit("Conv2d_4a_3x3", 192, (3, 3)), False),
)


def _blocks() -> Iterator[tuple[str, Sequence[Branch], Pool, Unit | None]]:
    """Name, branches, pool and the convolution behind the pool, of each block in order."""
    for name, behind in (("5b", 32), ("5c", 64), ("5d", 64)):
        yield f"Mixed_{name}", _fine(), "average", Unit("branch_pool", behind)
    yield "Mixed_6a", _first_halving(), "halve", None
    for name, narrow in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        yield f"Mixed_{name}", _lines(narrow), "average", Unit("branch_pool", 192)
    yield "Mixed_7a", _second_halving(), "halve", None
    yield "Mixed_7b", _forks(), "average", Unit("branch_pool", 192)
    yield "Mixed_7c", _forks(), "max", Unit("branch_pool", 192)


def _fine() -> Sequence[Branch]:
    return (
        (Unit("branch1x1", 64),),
        (Unit("branch5x5_1", 48), Unit("branch5x5_2", 64, (5, 5))),
        (Unit("branch3x3dbl_1", 64), Unit("branch3x3dbl_2", 96, (3, 3)), Unit("branch3x3dbl_3", 96, (3, 3))),
    )


def _first_halving() -> Sequence[Branch]:
    return (
        (Unit("branch3x3", 384, (3, 3), 2),),
        (Unit("branch3x3dbl_1", 64), Unit("branch3x3dbl_2", 96, (3, 3)), Unit("branch3x3dbl_3", 96, (3, 3), 2)),
    )


def _lines(narrow: int) -> Sequence[Branch]:
    row, column = (1, 7), (7, 1)
    return (
        (Unit("branch1x1", 192),),
        (Unit("branch7x7_1", narrow), Unit("branch7x7_2", narrow, row), Unit("branch7x7_3", 192, column)),
        (
            Unit("branch7x7dbl_1", narrow),
            Unit("branch7x7dbl_2", narrow, column),
            Unit("branch7x7dbl_3", narrow, row),
            Unit("branch7x7dbl_4", narrow, column),
            Unit("branch7x7dbl_5", 192, row),
        ),
    )


def _second_halving() -> Sequence[Branch]:
    return (
        (Unit("branch3x3_1", 192), Unit("branch3x3_2", 320, (3, 3), 2)),
        (
            Unit("branch7x7x3_1", 192),
            Unit("branch7x7x3_2", 192, (1, 7)),
            Unit("branch7x7x3_3", 192, (7, 1)),
            Unit("branch7x7x3_4", 192, (3, 3), 2),
        ),
    )


def _forks() -> Sequence[Branch]:
    row, column = (1, 3), (3, 1)
    return (
        (Unit("branch1x1", 320),),
        (Unit("branch3x3_1", 384), (Unit("branch3x3_2a", 384, row), Unit("branch3x3_2b", 384, column))),
        (
            Unit("branch3x3dbl_1", 448),
            Unit("branch3x3dbl_2", 384, (3, 3)),
            (Unit("branch3x3dbl_3a", 384, row), Unit("branch3x3dbl_3b", 384, column)),
        ),
    )


def _units(step: Unit | tuple[Unit, Unit]) -> tuple[Unit, ...]:
    return (step,) if isinstance(step, Unit) else step


def _pool(x: Tensor, pool: Pool) -> Tensor:
    if pool == "halve":
        return F.max_pool2d(x, 3, 2)
    if pool == "max":
        return F.max_pool2d(x, 3, 1, padding=1)
    return F.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
