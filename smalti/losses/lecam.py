"""LeCam: real logits are to stay near the running mean of the fakes' and the reverse; it helps where data are few.

The ReLU is in the authors' code but not in their preprint (google/lecam-gan#1).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from smalti.losses import Loss
from smalti.losses._reduction import check_choice
from smalti.nn.distributed import all_reduce_mean

Level = Literal["logit", "batch"]


def lecam(
    logits_real: Tensor, logits_fake: Tensor, ema_real: Tensor, ema_fake: Tensor, *, level: Level = "logit"
) -> Tensor:
    """mean(relu(r - ema_fake)^2) + mean(relu(ema_real - f)^2) of logits r and f.

    Args:
        logits_real: with shape (B, ...).
        logits_fake: with shape (B, ...).
        ema_real: running mean of real logits, a scalar.
        ema_fake: running mean of generated images' logits, a scalar.
        level: ``logit`` squares each logit's excess, ``batch`` that of the batch mean.

    Raises:
        ValueError: for an unknown level.

    Example:
        >>> lecam(torch.tensor([2.0, 0.0]), torch.zeros(2), torch.tensor(1.0), torch.tensor(0.0))
        tensor(3.)
    """
    check_choice("level", level, Level)
    if level == "batch":
        logits_real, logits_fake = logits_real.mean(), logits_fake.mean()
    return F.relu(logits_real - ema_fake).square().mean() + F.relu(ema_real - logits_fake).square().mean()


class LeCam(Loss):
    """LeCam = mean(relu(r - ema_f)^2) + mean(relu(ema_r - f)^2) of logits (B, ...) (Tseng et al., arXiv:2104.03310).

    For the discriminator's phase, at weights of 0.001 (TiTok) to 0.3. The running means start at 0; they change in
    ``update`` only, after the step that used them (as in TiTok; SEED-Voken updates before), and are saved.

    Args:
        decay: what the running means keep at each update, in [0, 1].
        level: ``logit`` squares each logit's excess (the authors, SEED-Voken), ``batch`` the batch mean's (TiTok).
    """

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "with `level: batch` the mean logits"}
    ema_real: Tensor
    ema_fake: Tensor

    def __init__(self, *, decay: Annotated[float, Field(ge=0.0, le=1.0)] = 0.999, level: Level = "logit") -> None:
        super().__init__()
        check_choice("level", level, Level)
        if not 0.0 <= decay <= 1.0:
            raise ValueError(f"decay={decay!r}: expected a number in [0, 1]")
        self.decay = decay
        self.level: Level = level
        self.register_buffer("ema_real", torch.zeros(()))
        self.register_buffer("ema_fake", torch.zeros(()))

    def statistics(self) -> Mapping[str, str]:
        """The mean logits, if they are what is squared."""
        return self.batch_statistics if self.level == "batch" else {}

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> Tensor:
        """The penalty, a scalar, of ``logits_real`` and ``logits_fake`` with shape (B, ...)."""
        ema_real, ema_fake = (ema.to(logits_real.dtype) for ema in (self.ema_real, self.ema_fake))
        return lecam(logits_real, logits_fake, ema_real, ema_fake, level=self.level)

    def update(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Moves the running means towards the mean logits of the micro-batches' ``records``, over all ranks."""
        for ema, name in ((self.ema_real, "logits_real"), (self.ema_fake, "logits_fake")):
            if records:
                mean = all_reduce_mean(torch.stack([record[name].mean() for record in records]).mean())
                ema.lerp_(mean.to(ema.dtype), 1.0 - self.decay)
