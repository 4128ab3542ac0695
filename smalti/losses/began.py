"""Boundary equilibrium GAN: the critic is an autoencoder, and a controller keeps both players' errors in proportion.

Such a critic's logits are its reconstruction (B, C, H, W). Bind them: ``inputs: {reconstruction_real: logits_real,
reconstruction_fake: logits_fake}``.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from smalti.losses import Loss
from smalti.losses._reduction import check_same_shape
from smalti.nn.distributed import all_reduce_mean
from smalti.outputs import LossValue


def began_generator(fake: Tensor, reconstruction_fake: Tensor) -> Tensor:
    """L_f = mean(|AE(x) - x|) of generated images x with shape (B, C, H, W).

    Example:
        >>> began_generator(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
        tensor(1.)
    """
    check_same_shape(reconstruction_fake, fake)
    return (reconstruction_fake - fake).abs().mean()


def began_discriminator(
    real: Tensor, fake: Tensor, reconstruction_real: Tensor, reconstruction_fake: Tensor, *, k: float | Tensor
) -> Tensor:
    """L_r - k L_f, L = mean(|AE(x) - x|) of real and of generated images with shape (B, C, H, W)."""
    return began_generator(real, reconstruction_real) - k * began_generator(fake, reconstruction_fake)


class BEGANGenerator(Loss):
    """Generator loss, L_f = mean(|AE(x) - x|), generated images x (B, C, H, W) (Berthelot et al., arXiv:1703.10717).

    Bind ``reconstruction_fake: logits_fake``.
    """

    phase = "generator"

    def forward(self, fake: Tensor, reconstruction_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``fake`` and its reconstruction, both with shape (B, C, H, W)."""
        return began_generator(fake, reconstruction_fake)


class BEGANDiscriminator(Loss):
    """Critic loss, L = L_r - k L_f, errors of images (B, C, H, W) (Berthelot et al., arXiv:1703.10717).

    After each update k <- clip(k + gain (gamma L_r - L_f), 0, 1); k starts at 0 and is saved. Parts: ``k`` and
    ``convergence`` = L_r + |gamma L_r - L_f|. Bind ``reconstruction_real: logits_real`` and
    ``reconstruction_fake: logits_fake``.

    Args:
        gamma: wanted proportion L_f / L_r, in [0, 1]: variety of the generated images.
        gain: step of the controller, at least 0.
    """

    phase = "discriminator"
    k: Tensor

    def __init__(
        self,
        *,
        gamma: Annotated[float, Field(ge=0.0, le=1.0)] = 0.75,
        gain: Annotated[float, Field(ge=0.0)] = 0.001,
    ) -> None:
        super().__init__()
        if not 0.0 <= gamma <= 1.0:
            raise ValueError(f"gamma={gamma!r}: expected a number in [0, 1]")
        if not gain >= 0.0:
            raise ValueError(f"gain={gain!r}: expected a number of at least 0")
        self.gamma = gamma
        self.gain = gain
        self.register_buffer("k", torch.zeros(()))

    def forward(
        self, real: Tensor, fake: Tensor, reconstruction_real: Tensor, reconstruction_fake: Tensor
    ) -> LossValue:
        """The loss of real and generated images and their reconstructions, all with shape (B, C, H, W)."""
        k = self.k.to(real.dtype)
        error_real, error_fake = began_generator(real, reconstruction_real), began_generator(fake, reconstruction_fake)
        excess = self.gamma * error_real.detach() - error_fake.detach()
        parts = {"k": k.clone(), "convergence": error_real.detach() + excess.abs(), "excess": excess}
        return LossValue(total=error_real - k * error_fake, parts=parts)

    def update(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Moves k by the mean ``excess`` gamma L_r - L_f of the micro-batches' ``records``, over all ranks."""
        if records:
            excess = all_reduce_mean(torch.stack([record["excess"] for record in records]).mean())
            self.k.add_(self.gain * excess.to(self.k.dtype)).clamp_(0.0, 1.0)
