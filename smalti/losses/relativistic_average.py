"""Relativistic average: real images are to look more real than the average made one, and the reverse.

The means carry a gradient, as in the paper. DeblurGANv2 and ESRGAN cut it (``detach``); DeblurGANv2 also takes means
over its last 50 batches, and PyTorch-GAN's generator leaves out the term of real images.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses._reduction import check_choice

Form = Literal["logistic", "least_squares"]


def relativistic_average_generator(
    logits_real: Tensor, logits_fake: Tensor, *, form: Form = "logistic", detach: bool = False
) -> Tensor:
    """mean(l(f - mean(r))) + mean(l(-(r - mean(f)))) of logits r and f.

    Args:
        logits_real: r, with shape (B, ...).
        logits_fake: f, with shape (B, ...).
        form: l(s) = softplus(-s) for ``logistic``, (s - 1)^2 for ``least_squares``.
        detach: whether the means carry no gradient.

    Raises:
        ValueError: for an unknown form.

    Example:
        >>> import torch
        >>> relativistic_average_generator(torch.zeros(2), torch.zeros(2))
        tensor(1.3863)
    """
    check_choice("form", form, Form)
    real, fake = (logits.mean().detach() if detach else logits.mean() for logits in (logits_real, logits_fake))
    above, below = logits_fake - real, fake - logits_real
    if form == "logistic":
        return F.softplus(-above).mean() + F.softplus(-below).mean()
    return (above - 1.0).square().mean() + (below - 1.0).square().mean()


def relativistic_average_discriminator(
    logits_real: Tensor, logits_fake: Tensor, *, form: Form = "logistic", detach: bool = False
) -> Tensor:
    """mean(l(r - mean(f))) + mean(l(-(f - mean(r)))): the generator's side with the players exchanged.

    Example:
        >>> import torch
        >>> relativistic_average_discriminator(torch.ones(2), torch.zeros(2), form="least_squares")
        tensor(0.)
    """
    return relativistic_average_generator(logits_fake, logits_real, form=form, detach=detach)


class _RelativisticAverage(Loss):
    """What both players share.

    Args:
        form: ``logistic`` or ``least_squares``.
        detach: whether the means carry no gradient.
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "the mean logits of real and generated images"}

    def __init__(self, *, form: Form = "logistic", detach: bool = False) -> None:
        super().__init__()
        check_choice("form", form, Form)
        self.form: Form = form
        self.detach = detach


class RelativisticAverageGenerator(_RelativisticAverage):
    """Generator loss, L = mean(l(f - mean(r))) + mean(l(mean(f) - r)), logits (B, ...) (arXiv:1807.00734).

    (RaGAN, Jolicoeur-Martineau.) DeblurGANv2 and ESRGAN have half of it: ``weight: 0.5``.

    Args:
        form: ``logistic`` (RaSGAN), l(s) = softplus(-s), or ``least_squares`` (RaLSGAN), l(s) = (s - 1)^2.
        detach: whether the means carry no gradient, as in ESRGAN and DeblurGANv2.
    """

    phase = "generator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return relativistic_average_generator(logits_real, logits_fake, form=self.form, detach=self.detach)


class RelativisticAverageDiscriminator(_RelativisticAverage):
    """Discriminator loss, L = mean(l(r - mean(f))) + mean(l(mean(r) - f)), logits (B, ...) (arXiv:1807.00734).

    (RaGAN, Jolicoeur-Martineau.) PyTorch-GAN, DeblurGANv2 and ESRGAN have half of it: ``weight: 0.5``.

    Args:
        form: ``logistic`` (RaSGAN), l(s) = softplus(-s), or ``least_squares`` (RaLSGAN), l(s) = (s - 1)^2.
        detach: whether the means carry no gradient, as in ESRGAN and DeblurGANv2.
    """

    phase = "discriminator"

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The loss, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        return relativistic_average_discriminator(logits_real, logits_fake, form=self.form, detach=self.detach)
