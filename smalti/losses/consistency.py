"""Consistency: a discriminator is to judge an image and its mirrored, slightly moved copy alike.

CR looks at real images; bound to ``fake`` too (``inputs: {fake: fake}``) it is balanced, bCR.
"""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from smalti.losses import Loss
from smalti.losses._penalty import Critic
from smalti.nn.warp import flip, translate


def consistency(discriminator: Critic, images: Tensor, augmented: Tensor) -> Tensor:
    """mean over samples of (D(x) - D(T x))^2, D(x) the mean of an image's logits.

    The mean, since the patches of a mirrored image are others.

    Args:
        discriminator: images -> ``DiscriminatorOutput``.
        images: x, with shape (B, C, H, W).
        augmented: T x, same shape.

    Example:
        >>> from smalti.outputs import DiscriminatorOutput
        >>> critic = lambda x: DiscriminatorOutput(logits=x.mean(dim=1))
        >>> consistency(critic, torch.zeros(2, 1, 4, 4), torch.full((2, 1, 4, 4), 3.0))
        tensor(9.)
    """
    first, second = (discriminator(x).logits.reshape(x.shape[0], -1).mean(dim=1) for x in (images, augmented))
    return (first - second).square().mean()


def mirror_and_shift(images: Tensor, shift: int) -> Tensor:
    """Images (B, C, H, W), each mirrored with probability 1/2 and moved by up to ``shift`` pixels both ways.

    >>> mirror_and_shift(torch.ones(2, 1, 4, 4), 0).eq(1.0).all()
    tensor(True)
    """
    batch, device = images.shape[0], images.device
    rows, columns = torch.randint(-shift, shift + 1, (2, batch), device=device)
    return translate(flip(images, torch.rand(batch, device=device) < 0.5), rows, columns)


class Consistency(Loss):
    """L = mean((D(x) - D(T x))^2) of images (B, C, H, W) (CR, Zhang et al., arXiv:1910.12027; bCR, arXiv:2002.04724).

    For the discriminator's phase, at ``weight: 10``. T mirrors and shifts, as in the papers. Both judgements see
    equal dropout only if there is none.

    Args:
        shift: most pixels that T moves an image by.
    """

    def __init__(self, *, shift: Annotated[int, Field(ge=0)] = 4) -> None:
        super().__init__()
        if shift < 0:
            raise ValueError(f"shift={shift!r}: expected a whole number of at least 0")
        self.shift = shift

    def forward(self, discriminator: Critic, real: Tensor, fake: Tensor | None = None) -> Tensor:
        """The loss at ``real``, plus that at ``fake`` if it is bound, both with shape (B, C, H, W)."""
        loss = consistency(discriminator, real, mirror_and_shift(real, self.shift))
        if fake is None:
            return loss
        return loss + consistency(discriminator, fake, mirror_and_shift(fake, self.shift))
