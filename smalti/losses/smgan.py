"""Soft mask GAN: the discriminator marks which part of a completed image was painted, with soft edges.

The mask is 1 where the generator painted. AOT-GAN's code (and MMagic's) labels the painted part 1, as real images are,
and the known part 0; its paper means the reverse, as here. Both are labels: ``known_label: 0, painted_label: 1``. Their
generator also multiplies a mean by the mask, which leaves the mask without effect; here it weighs each position.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses._reduction import check_label, reduce

Label = Annotated[float, Field(ge=0.0, le=1.0)]


def gaussian_blur(
    maps: Tensor, kernel_size: tuple[int, int] = (71, 71), sigma: tuple[float, float] = (10.0, 10.0)
) -> Tensor:
    """``maps`` (B, C, H, W) under a Gaussian window, 0 outside; rows and columns one after the other.

    Args:
        maps: with shape (B, C, H, W).
        kernel_size: height and width of the window, odd.
        sigma: standard deviations in pixels, vertical and horizontal.

    Example:
        >>> gaussian_blur(torch.ones(1, 1, 5, 5), (3, 3), (1.0, 1.0))[0, 0, 2, 2]
        tensor(1.)
    """
    channels = maps.shape[1]
    for axis in (0, 1):
        size = kernel_size[axis]
        offsets = torch.arange(size, dtype=maps.dtype, device=maps.device) - size // 2
        window = torch.exp(-0.5 * (offsets / sigma[axis]).square())
        shape, padding = [1, 1], [0, 0]
        shape[axis], padding[axis] = size, size // 2
        kernel = (window / window.sum()).reshape(1, 1, *shape).expand(channels, 1, *shape)
        maps = F.conv2d(maps, kernel, padding=padding, groups=channels)
    return maps


def smgan_generator(logits_fake: Tensor, mask: Tensor) -> Tensor:
    """sum(m (f - 1)^2) / sum(m) of logits f, resized to the mask m.

    Args:
        logits_fake: with shape (B, 1, h, w).
        mask: 1 where the image was painted, with shape (B, 1, H, W).

    Example:
        >>> smgan_generator(torch.tensor([[[[0.0, 3.0]]]]), torch.tensor([[[[1.0, 0.0]]]]))
        tensor(1.)
    """
    return reduce((_resized(logits_fake, mask) - 1.0).square(), mask)


def smgan_discriminator(
    logits_real: Tensor,
    logits_fake: Tensor,
    mask: Tensor,
    *,
    kernel_size: int = 71,
    sigma: float = 10.0,
    real_label: float = 1.0,
    known_label: float = 1.0,
    painted_label: float = 0.0,
) -> Tensor:
    """mean((r - real_label)^2) + mean((f - t)^2), t = b painted_label + (1 - b) known_label, b the blurred mask.

    Args:
        logits_real: r, with shape (B, 1, h, w), resized to the mask.
        logits_fake: f, likewise.
        mask: 1 where the image was painted, with shape (B, 1, H, W).
        kernel_size: side of the Gaussian window in pixels, odd.
        sigma: its standard deviation in pixels.
        real_label: what real images should score.
        known_label: what the known part of a completed image should score.
        painted_label: what its painted part should score.

    Example:
        >>> zeros = torch.zeros(1, 1, 2, 2)
        >>> smgan_discriminator(zeros + 1.0, zeros, zeros + 1.0, kernel_size=1)
        tensor(0.)
    """
    blurred = gaussian_blur(mask, (kernel_size, kernel_size), (sigma, sigma)).detach()
    target = blurred * painted_label + (1.0 - blurred) * known_label
    real, fake = _resized(logits_real, mask), _resized(logits_fake, mask)
    return (real - real_label).square().mean() + (fake - target).square().mean()


def _resized(logits: Tensor, mask: Tensor) -> Tensor:
    if logits.ndim != 4 or mask.ndim != 4 or mask.shape[1] != 1:
        raise ValueError(
            f"logits with shape {tuple(logits.shape)} and mask {tuple(mask.shape)}: expected (B, 1, h, w), (B, 1, H, W)"
        )
    if logits.shape[2:] == mask.shape[2:]:
        return logits
    size = [mask.shape[2], mask.shape[3]]
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=True)


class SMGANGenerator(Loss):
    """Generator loss, L = sum(m (f - 1)^2) / sum(m), logits f (B, 1, h, w) (Zeng et al., arXiv:2104.01431).

    The mask m (B, 1, H, W) is 1 where the image was painted: ``inputs: {mask: batch.mask}``.
    """

    phase = "generator"
    batch_statistics: ClassVar[Mapping[str, str]] = {"": "the sum of the mask"}

    def forward(self, logits_fake: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_fake`` with shape (B, 1, h, w) and ``mask`` with shape (B, 1, H, W)."""
        return smgan_generator(logits_fake, mask.to(logits_fake.dtype))


class SMGANDiscriminator(Loss):
    """Discriminator loss, L = mean((r - 1)^2) + mean((f - t)^2), t = 1 - blur(mask) (Zeng et al., arXiv:2104.01431).

    Logits r and f have shape (B, 1, h, w); the mask (B, 1, H, W) is 1 where the image was painted:
    ``inputs: {mask: batch.mask}``.

    Args:
        kernel_size: side of the Gaussian window that softens the mask, in pixels, odd.
        sigma: its standard deviation in pixels.
        real_label: what real images should score.
        known_label: what the known part of a completed image should score; 0 in the originals' code.
        painted_label: what its painted part should score; 1 in the originals' code.
    """

    phase = "discriminator"

    def __init__(
        self,
        *,
        kernel_size: Annotated[int, Field(ge=1)] = 71,
        sigma: Annotated[float, Field(gt=0.0)] = 10.0,
        real_label: Label = 1.0,
        known_label: Label = 1.0,
        painted_label: Label = 0.0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size!r}: expected an odd number of pixels")
        if not sigma > 0.0:
            raise ValueError(f"sigma={sigma!r}: expected a number above 0")
        for name, label in (("real", real_label), ("known", known_label), ("painted", painted_label)):
            check_label(f"{name}_label", label)
        self.kernel_size = kernel_size
        self.sigma = sigma
        self.real_label = real_label
        self.known_label = known_label
        self.painted_label = painted_label

    def forward(self, logits_real: Tensor, logits_fake: Tensor, mask: Tensor) -> Tensor:
        """The loss, a scalar, of logits with shape (B, 1, h, w) and ``mask`` with shape (B, 1, H, W)."""
        return smgan_discriminator(
            logits_real,
            logits_fake,
            mask.to(logits_fake.dtype),
            kernel_size=self.kernel_size,
            sigma=self.sigma,
            real_label=self.real_label,
            known_label=self.known_label,
            painted_label=self.painted_label,
        )
