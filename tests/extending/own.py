"""What a user would have in files of their own: losses as function and module, a model with more outputs."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from smalti.outputs import Batch, LossValue


def shift(scores: Tensor, *, rest: float = 0.0) -> Tensor:
    return (scores - rest).square().mean()


def watch(prediction: Tensor, codes: Tensor) -> Tensor:
    return prediction.abs().sum() + codes.square().sum()


CALLS: list[float] = []


def counted(logits_real: Tensor, logits_fake: Tensor) -> Tensor:
    """Notes each of its calls."""
    CALLS.append(logits_real.detach().mean().item())
    return shift(logits_real) + shift(logits_fake)


class Shift(nn.Module):
    """An option of it is called as a field of terms is: it stands under ``options``."""

    def __init__(self, *, weight: Annotated[float, Field(ge=0.0)] = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, logits_real: Tensor, logits_fake: Tensor) -> LossValue:
        real, fake = shift(logits_real), shift(logits_fake)
        return LossValue(total=self.weight * (real + fake) / 2, parts={"real": real.detach(), "fake": fake.detach()})


@dataclass(frozen=True, kw_only=True)
class Matte:
    """Opacity (B, 1, H, W), and the picture that it makes of the batch's layers (B, 3, H, W)."""

    alpha: Tensor
    picture: Tensor


class Matting(nn.Module):
    """Predicts how opaque the foreground is, from the image."""

    judged: ClassVar[str] = "picture"

    def __init__(self, channels: int = 4) -> None:
        super().__init__()
        self.look = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.weight

    def training_forward(self, batch: Batch) -> Matte:
        alpha = torch.sigmoid(self.last(self.look(batch["image"])))
        return Matte(alpha=alpha, picture=alpha * batch["foreground"] + (1 - alpha) * batch["background"])
