"""DiffAugment: strong random colours, shifts and holes on every image that is judged, always."""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from smalti.discriminators._augmentation import Augmentation, Draws, cutout
from smalti.nn.warp import translate

Policy = Literal["color", "translation", "cutout"]
POLICIES: tuple[Policy, ...] = get_args(Policy)


class DiffAugment(Augmentation):
    """DiffAugment on images (B, C, H, W) in [-1, 1] (Zhao et al., arXiv:2006.10738).

    ``color``: brightness x + u with u in [-0.5, 0.5), saturation (x - m) u + m with m the mean over channels and u in
    [0, 2), contrast likewise about the mean of the image with u in [0.5, 1.5). ``translation``: up to 1/8 of each side,
    0 coming in. ``cutout``: a window of half of each side is set to 0.

    Args:
        policy: which of the three; each acts on every image.

    Example:
        >>> import torch
        >>> images, _ = DiffAugment(policy=["cutout"])(torch.ones(1, 3, 8, 8))
        >>> images.shape
        torch.Size([1, 3, 8, 8])
    """

    def __init__(self, *, policy: Sequence[Policy] = POLICIES) -> None:
        super().__init__()
        if not policy or not set(policy) <= set(POLICIES):
            raise ValueError(f"policy={policy!r}: expected some of {', '.join(map(repr, POLICIES))}")
        self.policy = tuple(policy)

    def color(self, images: Tensor, draws: Draws) -> Tensor:
        """Images (B, C, H, W) in other brightness, saturation and contrast."""
        if "color" not in self.policy:
            return images
        brightness, saturation, contrast = (
            draws.uniform(low, high).reshape(-1, 1, 1, 1) for low, high in ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5))
        )
        images = images + brightness
        gray = images.mean(dim=1, keepdim=True)
        images = (images - gray) * saturation + gray
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return (images - mean) * contrast + mean

    def place(self, maps: Tensor, draws: Draws) -> Tensor:
        """Maps (B, C, H, W), shifted and with a hole."""
        height, width = maps.shape[-2:]
        if "translation" in self.policy:
            rows, columns = (draws.integers(-limit, limit) for limit in (_part(height, 8), _part(width, 8)))
            maps = translate(maps, rows, columns)
        if "cutout" in self.policy:
            row, column = draws.integers(0, height - 1), draws.integers(0, width - 1)
            maps = cutout(maps, row, column, _part(height, 2), _part(width, 2))
        return maps


def _part(size: int, divisor: int) -> int:
    return int(size / divisor + 0.5)
