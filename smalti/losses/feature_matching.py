"""Feature matching: generated images are to look like their targets to the layers of the discriminator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from smalti.losses import Loss


def feature_matching(features_real: Sequence[Tensor], features_fake: Sequence[Tensor]) -> Tensor:
    """mean over layers of mean(|F - sg R|), R and F features of real and generated images.

    Args:
        features_real: activations of the discriminator's layers, each with shape (B, C, h, w); they get no gradient.
        features_fake: same shapes.

    Raises:
        ValueError: for no features at all, or unequal numbers or shapes.

    Example:
        >>> feature_matching([torch.zeros(1, 1, 2, 2)], [torch.ones(1, 1, 2, 2)])
        tensor(1.)
    """
    shapes = [[tuple(layer.shape) for layer in layers] for layers in (features_real, features_fake)]
    if not shapes[0] or shapes[0] != shapes[1]:
        raise ValueError(f"features_real have shapes {shapes[0]}, features_fake {shapes[1]}: expected one pair a layer")
    pairs = zip(features_real, features_fake, strict=True)
    return torch.stack([(fake - real.detach()).abs().mean() for real, fake in pairs]).mean()


class FeatureMatching(Loss):
    """L = mean over layers of mean(|F - sg R|) of discriminator features (B, C, h, w) (Wang et al., arXiv:1711.11585).

    For the generator's phase, where real and generated images are pairs. ``weight: 40`` is pix2pixHD's 10, for its
    layer weights add up to 4.
    """

    def forward(self, features_real: Sequence[Tensor], features_fake: Sequence[Tensor]) -> Tensor:
        """The loss, a scalar, of features with shapes (B, C, h, w), one for each layer."""
        return feature_matching(features_real, features_fake)
