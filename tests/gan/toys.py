"""Small GANs and trainers for the tests of this folder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smalti.assembly.columns import condition_of
from smalti.discriminators.mlp import MLP
from smalti.engine.settings import EMASettings, EngineSettings, PhaseOptimizer
from smalti.engine.trainer import Trainer
from smalti.losses.gradient_penalty import GradientPenalty
from smalti.losses.wgan import WGANDiscriminator, WGANGenerator
from smalti.models.mlp_generator import MLPGenerator
from smalti.objectives.phases import DiscriminatorPhase, GeneratorPhase
from smalti.objectives.term import Term

SIDE = 4


class Images:
    """A loader of random images (B, C, H, W), the same for equal global positions, with labels and epsilon."""

    def __init__(
        self, batch_size: int = 4, shape: Sequence[int] = (1, SIDE, SIDE), rank: int = 0, world: int = 1
    ) -> None:
        self.batch_size, self.shape, self.rank, self.world = batch_size, tuple(shape), rank, world

    def batches(self, start: int = 0) -> Iterator[dict[str, Any]]:
        number = start
        while True:
            first = (number * self.world + self.rank) * self.batch_size
            yield self._batch(range(first, first + self.batch_size))
            number += 1

    def _batch(self, positions: range) -> dict[str, Any]:
        images, epsilon = [], []
        for position in positions:
            random = torch.Generator().manual_seed(position)
            images.append(torch.rand(self.shape, generator=random, dtype=torch.float64) * 2 - 1)
            epsilon.append(torch.rand((), generator=random, dtype=torch.float64))
        index = torch.tensor(list(positions))
        return {
            "image": torch.stack(images),
            "epsilon": torch.stack(epsilon),
            "position": index,
            "index": index,
            "label": index % 3,
        }


def tiny_gan(
    out: Path,
    *,
    model: nn.Module | None = None,
    critic: nn.Module | None = None,
    generator_terms: Sequence[Term] = (),
    critic_terms: Sequence[Term] = (),
    cycle: Sequence[Any] = ("discriminator", "generator"),
    rates: tuple[float, float] = (1e-3, 1e-3),
    batch_size: int = 4,
    shape: Sequence[int] = (1, SIDE, SIDE),
    optimizer: Any = None,
    **settings: Any,
) -> Trainer:
    """A trainer of a WGAN of two small perceptrons, unless something else is given."""
    torch.manual_seed(7)
    model = model or MLPGenerator(image_size=SIDE, image_channels=1, latent_size=3, widths=(8,), norm="none")
    critic = critic or MLP(image_size=SIDE, in_channels=1, widths=(8,))
    condition = condition_of(critic)
    phases = {
        "generator": GeneratorPhase(
            model,
            [Term(name="adversarial", loss=WGANGenerator()), *generator_terms],
            discriminator=critic,
            condition=condition,
        ),
        "discriminator": DiscriminatorPhase(
            critic,
            [Term(name="adversarial", loss=WGANDiscriminator()), *critic_terms],
            model=model,
            condition=condition,
        ),
    }
    options: dict[str, Any] = {"max_steps": 3, "log_every": 1, "sample_every": 0, "checkpoint_every": 0}
    options |= {"deterministic": torch.cuda.is_available()} | settings  # equal runs are equal bit for bit there, too
    specs = {
        name: optimizer or PhaseOptimizer(lr=rate, betas=(0.5, 0.9))
        for name, rate in zip(("generator", "discriminator"), rates, strict=True)
    }
    return Trainer(
        phases=phases,
        model=model,
        loader=lambda *, rank, world_size: Images(batch_size, shape, rank, world_size),
        optimizers=specs,
        settings=EngineSettings(**options),
        out=out,
        cycle=cycle,
        quiet=True,
    )


def parameters_of_tiny_gan(out: Path, **options: Any) -> dict[str, list[float]]:
    """Parameters in float64 after 3 generator updates with a gradient penalty, and their averages."""
    penalty = Term(name="penalty", loss=GradientPenalty(), weight=10.0, inputs={"epsilon": "batch.epsilon"})
    trainer = tiny_gan(
        out,
        critic_terms=[penalty],
        cycle=["discriminator*2", "generator"],
        batches="fresh",
        precision="fp64",
        ema=EMASettings(half_life=20.0),
        **options,
    )
    trainer.run()
    assert trainer.ema is not None
    found = {f"{name}.{key}": p for name, phase in trainer.phases.items() for key, p in phase.named_parameters()}
    found |= {f"ema.{name}": value for name, value in trainer.ema.state_dict().items()}
    return {name: value.detach().flatten().tolist() for name, value in found.items()}


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}
