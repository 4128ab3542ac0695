"""Energy-based GAN: the critic is an autoencoder, its energy the error of its reconstruction, low for real images.

Such a critic's logits are its reconstruction (B, C, H, W), and its last feature the embedding in its middle. Bind them:
``inputs: {reconstruction_real: logits_real, reconstruction_fake: logits_fake}``. The margin acts on each image, as in
the paper; in PyTorch-GAN on the mean of the batch.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses._reduction import check_same_shape
from smalti.nn.unit import unit


def pull_away(embeddings: Tensor) -> Tensor:
    """sum over i != j of cos(e_i, e_j)^2 / (B (B - 1)): embeddings of a batch are to be orthogonal.

    PyTorch-GAN forgets the square: there opposite embeddings, which are no more alike, are rewarded.

    Args:
        embeddings: with shape (B, ...), B at least 2.

    Raises:
        ValueError: for a single sample.

    Example:
        >>> import torch
        >>> pull_away(torch.eye(3)), pull_away(torch.eye(2).repeat(2, 1))
        (tensor(0.), tensor(0.3333))
    """
    batch = embeddings.shape[0]
    if batch < 2:
        raise ValueError(f"embeddings with shape {tuple(embeddings.shape)}: pull-away needs at least 2 samples")
    rows = unit(embeddings.flatten(1))
    squares = (rows @ rows.T).square()
    return (squares.sum() - squares.diagonal().sum()) / (batch * (batch - 1))


def energy(images: Tensor, reconstruction: Tensor) -> Tensor:
    """mean((AE(x) - x)^2) of each image, with shape (B,); both have shape (B, C, H, W)."""
    check_same_shape(reconstruction, images)
    return (reconstruction - images).square().flatten(1).mean(dim=1)


def ebgan_generator(
    fake: Tensor,
    reconstruction_fake: Tensor,
    features_fake: Sequence[Tensor] | None = None,
    *,
    pull_away_weight: float = 0.1,
) -> Tensor:
    """mean(E(x)) + pull_away_weight * pull_away(embedding), E(x) = mean((AE(x) - x)^2).

    Args:
        fake: x, generated images with shape (B, C, H, W).
        reconstruction_fake: AE(x), same shape.
        features_fake: the critic's features, the last one the embedding (B, ...); None: no pull-away.
        pull_away_weight: how strongly embeddings push each other off.

    Example:
        >>> import torch
        >>> ebgan_generator(torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2))
        tensor(1.)
    """
    loss = energy(fake, reconstruction_fake).mean()
    if features_fake is None:
        return loss
    return loss + pull_away_weight * pull_away(features_fake[-1])


def ebgan_discriminator(
    real: Tensor, fake: Tensor, reconstruction_real: Tensor, reconstruction_fake: Tensor, *, margin: float = 1.0
) -> Tensor:
    """mean(E(real)) + mean(max(0, margin - E(fake))), E(x) = mean((AE(x) - x)^2) of each image (B, C, H, W).

    Example:
        >>> import torch
        >>> images, wrong = torch.zeros(2, 1, 2, 2), torch.full((2, 1, 2, 2), 0.5)
        >>> ebgan_discriminator(images, images, images, wrong)
        tensor(0.7500)
    """
    return energy(real, reconstruction_real).mean() + F.relu(margin - energy(fake, reconstruction_fake)).mean()


class EBGANGenerator(Loss):
    """Generator loss, L = mean(E(x)) + pull_away_weight * pull-away, images (B, C, H, W) (arXiv:1609.03126).

    (Zhao et al.) E(x) = mean((AE(x) - x)^2). Bind ``reconstruction_fake: logits_fake``, and for the pull-away
    ``features_fake: features_fake``.

    Args:
        pull_away_weight: how strongly embeddings push each other off, at least 0.
    """

    phase = "generator"
    batch_statistics: ClassVar[Mapping[str, str]] = {"features_fake": "with `features_fake` how alike its images are"}

    def __init__(self, *, pull_away_weight: Annotated[float, Field(ge=0.0)] = 0.1) -> None:
        super().__init__()
        if not pull_away_weight >= 0.0:
            raise ValueError(f"pull_away_weight={pull_away_weight!r}: expected a number of at least 0")
        self.pull_away_weight = pull_away_weight

    def statistics(self) -> Mapping[str, str]:
        """How alike images are, if it counts."""
        return self.batch_statistics if self.pull_away_weight else {}

    def forward(
        self, fake: Tensor, reconstruction_fake: Tensor, features_fake: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The loss, a scalar, of ``fake`` and its reconstruction (B, C, H, W), and the embedding, the last feature."""
        return ebgan_generator(fake, reconstruction_fake, features_fake, pull_away_weight=self.pull_away_weight)


class EBGANDiscriminator(Loss):
    """Critic loss, L = mean(E(real)) + mean(max(0, margin - E(fake))), images (B, C, H, W) (arXiv:1609.03126).

    (Zhao et al.) E(x) = mean((AE(x) - x)^2) of each image. Bind ``reconstruction_real: logits_real`` and
    ``reconstruction_fake: logits_fake``.

    Args:
        margin: energy above which generated images are left alone, at least 0; PyTorch-GAN takes max(1, B / 64).
    """

    phase = "discriminator"

    def __init__(self, *, margin: Annotated[float, Field(ge=0.0)] = 1.0) -> None:
        super().__init__()
        if not margin >= 0.0:
            raise ValueError(f"margin={margin!r}: expected a number of at least 0")
        self.margin = margin

    def forward(self, real: Tensor, fake: Tensor, reconstruction_real: Tensor, reconstruction_fake: Tensor) -> Tensor:
        """The loss, a scalar, of real and generated images and their reconstructions, all with shape (B, C, H, W)."""
        return ebgan_discriminator(real, fake, reconstruction_real, reconstruction_fake, margin=self.margin)
