"""A model that has every output that a loss of MMagic asks for."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Output:
    images: Tensor
    latents: Tensor
    alpha: Tensor
    maps: Tensor
    textures: Tensor
    attention: Tensor


class Everything(nn.Module):
    judged: ClassVar[str] = "images"

    def __init__(self) -> None:
        super().__init__()
        self.last_layer = nn.Parameter(nn.Linear(1, 1).weight.detach().clone())

    def sample(self, noise: Tensor) -> Tensor:
        return noise

    def training_forward(self, batch: object) -> Output:
        raise NotImplementedError
