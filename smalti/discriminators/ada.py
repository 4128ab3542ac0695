"""ADA: augmentation whose strength follows how sure the discriminator is of the training images.

The probability p of each transformation rises while the discriminator calls more than a wanted share of real images
real, and falls otherwise. What happens with p < 1 does not leak into generated images, for the undistorted ones
stay the most frequent.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

import torch
from pydantic import Field
from torch import Tensor

from smalti.discriminators._augmentation import Augmentation, Draws, cutout, when
from smalti.nn.constants import constant
from smalti.nn.distributed import all_reduce_sum
from smalti.nn.memory_format import like
from smalti.nn.warp import resample
from smalti.outputs import DiscriminatorOutput

Group = Literal["blit", "geometry", "color", "cutout"]
GROUPS: tuple[Group, ...] = get_args(Group)


class ADA(Augmentation):
    """Adaptive discriminator augmentation of images (B, C, H, W) in [-1, 1] (Karras et al., arXiv:2006.06676).

    ``blit``: mirroring, quarter turns, shifts by up to 1/8; ``geometry``: scale, rotation, stretching, fractional
    shifts; ``color``: brightness, contrast, and of 3 channels luma flip, hue and saturation; ``cutout``: half of each
    side set to 0. The first three are the paper's best set, bgc. Its filter and noise groups are not offered. All moves
    are one bilinear resampling with reflected borders; the paper's code first upsamples with a wavelet.

    p moves in ``update`` only: every ``interval`` updates by sign(r - target) x images seen / ``ramp`` within [0, 1],
    with r = E sign(D(x)) of real images x. p and the running counts are buffers, saved with the discriminator.

    Args:
        groups: which of the four groups act.
        target: wanted r.
        interval: updates between two moves of p.
        ramp: number of images in which p could go from 0 to 1.
        initial: p at the start, in [0, 1].

    Example:
        >>> images, _ = ADA()(torch.ones(1, 3, 8, 8))
        >>> bool((images == 1.0).all())
        True
    """

    probability: Tensor
    signs: Tensor

    def __init__(
        self,
        *,
        groups: Sequence[Group] = ("blit", "geometry", "color"),
        target: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.6,
        interval: Annotated[int, Field(ge=1)] = 4,
        ramp: Annotated[int, Field(ge=1)] = 500_000,
        initial: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0,
    ) -> None:
        super().__init__()
        if not groups or not set(groups) <= set(GROUPS):
            raise ValueError(f"groups={groups!r}: expected some of {', '.join(map(repr, GROUPS))}")
        if not 0.0 <= initial <= 1.0:
            raise ValueError(f"initial={initial!r}: expected a number in [0, 1]")
        self.groups = tuple(groups)
        self.target = target
        self.interval = interval
        self.ramp = ramp
        self.register_buffer("probability", torch.tensor(initial))
        # sum of signs, number of logits, images, updates since p last moved
        self.register_buffer("signs", torch.zeros(4))

    def color(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (B, C, H, W) under one random affine map of their colours."""
        if "color" not in self.groups:
            return images
        chance = self.probability.to(images.dtype)
        shift = when(draws.uniform() < chance, draws.normal(0.2), 0.0).reshape(-1, 1, 1, 1)
        gain = when(draws.uniform() < chance, torch.exp2(draws.normal(0.5)), 1.0).reshape(-1, 1, 1, 1)
        images = (images + shift) * gain
        return images if images.shape[1] != 3 else _tinted(images, chance, draws)

    def place(self, maps: Tensor, draws: Draws) -> Tensor:
        """Maps (B, C, H, W), moved by one random affine map, and with a hole."""
        chance = self.probability.to(maps.dtype)
        height, width = maps.shape[-2:]
        matrix = torch.eye(3, dtype=maps.dtype, device=maps.device).expand(maps.shape[0], 3, 3)
        if "blit" in self.groups:
            matrix = matrix @ _blit(chance, draws, height, width)
        if "geometry" in self.groups:
            matrix = matrix @ _geometry(chance, draws)
        if {"blit", "geometry"} & set(self.groups):
            maps = resample(maps, matrix[:, :2])
        if "cutout" in self.groups:
            row, column = draws.integers(0, height - 1), draws.integers(0, width - 1)
            hidden = cutout(maps, row, column, (height + 1) // 2, (width + 1) // 2)
            maps = when((draws.uniform() < chance).reshape(-1, 1, 1, 1), hidden, maps)
        return maps

    def measures(self) -> Mapping[str, Tensor]:
        """``probability``: p, a scalar."""
        return {"probability": self.probability.clone()}

    @torch.no_grad()
    def update(self, records: Sequence[DiscriminatorOutput]) -> None:
        """Counts the signs of real images' logits (B, ...) over all micro-batches and ranks; moves p when it is due."""
        if not records:
            return
        seen = [(r.logits.sign().sum(), r.logits.numel(), r.logits.shape[0]) for r in records]
        signs, logits, images = (sum(column) for column in zip(*seen, strict=True))
        counts = torch.stack([torch.as_tensor(n).to(self.signs) for n in (signs, logits, images)])
        self.signs[:3] += all_reduce_sum(counts)
        self.signs[3] += 1
        step = torch.sign(self.signs[0] / self.signs[1] - self.target) * self.signs[2] / self.ramp
        # without a question to the device: not due, nothing is added and nothing forgotten
        due = (self.signs[3] >= self.interval).to(self.signs.dtype)
        self.probability.add_((due * step).to(self.probability.dtype)).clamp_(0.0, 1.0)
        self.signs.mul_(1.0 - due)


def _rotation(angle: Tensor) -> Tensor:
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    return _matrix([[cos, -sin, zero], [sin, cos, zero], [zero, zero, one]])


def _scaling(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[x, zero, zero], [zero, y, zero], [zero, zero, one]])


def _translation(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix([[one, zero, x], [zero, one, y], [zero, zero, one]])


def _matrix(rows: Sequence[Sequence[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(list(row), dim=-1) for row in rows], dim=-2)


def _blit(chance: Tensor, draws: Draws, height: int, width: int) -> Tensor:
    """Mirroring, quarter turns and shifts by whole pixels, as maps (B, 3, 3) of coordinates in [-1, 1]."""
    sign = when(draws.uniform() < chance, 1.0 - 2.0 * draws.integers(0, 1), 1.0).to(chance.dtype)
    turns = when(draws.uniform() < chance, draws.integers(0, 3), 0.0).to(chance.dtype)
    moved = draws.uniform() < chance
    x, y = (when(moved, (draws.uniform(-0.125, 0.125) * size).round() * 2.0 / size, 0.0) for size in (width, height))
    return _scaling(sign, torch.ones_like(sign)) @ _rotation(turns * (math.pi / 2.0)) @ _translation(x, y)


def _geometry(chance: Tensor, draws: Draws) -> Tensor:
    """Scale, rotation before and after stretching, and shifts, as maps (B, 3, 3) of coordinates in [-1, 1]."""
    scale = when(draws.uniform() < chance, torch.exp2(draws.normal(0.2)), 1.0)
    # two chances to rotate: together they come to p
    chance_of_each = 1.0 - (1.0 - chance).clamp(0.0, 1.0).sqrt()
    before = when(draws.uniform() < chance_of_each, draws.uniform(-math.pi, math.pi), 0.0)
    stretch = when(draws.uniform() < chance, torch.exp2(draws.normal(0.2)), 1.0)
    after = when(draws.uniform() < chance_of_each, draws.uniform(-math.pi, math.pi), 0.0)
    moved = draws.uniform() < chance
    x, y = (when(moved, draws.normal(0.25), 0.0) for _ in range(2))
    turned = _scaling(scale, scale) @ _rotation(before) @ _scaling(stretch, 1.0 / stretch) @ _rotation(after)
    return turned @ _translation(x, y)


def _tinted(images: Tensor, chance: Tensor, draws: Draws) -> Tensor:
    """Luma flip, hue and saturation of RGB images (B, 3, H, W): maps that keep, or mirror, the gray axis."""
    flat = images.flatten(2)
    gray = torch.full((3, 3), 1.0 / 3.0, dtype=images.dtype, device=images.device)
    colors = torch.eye(3, dtype=images.dtype, device=images.device) - gray
    root = 3.0**-0.5
    turn = constant([[0.0, -root, root], [root, 0.0, -root], [-root, root, 0.0]], torch.float32, images.device)
    turn = turn.to(images)
    flip = when(draws.uniform() < chance, 1.0 - 2.0 * draws.integers(0, 1), 1.0).to(images.dtype).reshape(-1, 1, 1)
    hue = when(draws.uniform() < chance, draws.uniform(-math.pi, math.pi), 0.0).reshape(-1, 1, 1)
    saturation = when(draws.uniform() < chance, torch.exp2(draws.normal()), 1.0).reshape(-1, 1, 1)
    matrix = flip * gray + saturation * (hue.cos() * colors + hue.sin() * turn)
    return like((matrix @ flat).reshape(images.shape), images)
