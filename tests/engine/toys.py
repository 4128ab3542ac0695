"""A tiny tokenizer with an adversary, on images made of numbers: everything real, only small."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from smalti.bottlenecks import Bottleneck
from smalti.bottlenecks.gaussian import Gaussian
from smalti.bottlenecks.tokens import Branch, Tokens
from smalti.data import ImageSource
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.transforms import Transform
from smalti.discriminators.patch import Patch
from smalti.engine.settings import EngineSettings, PhaseOptimizer, ValidationSettings
from smalti.engine.trainer import Trainer
from smalti.engine.validation import Validation
from smalti.losses.categorical_kl import CategoricalKL
from smalti.losses.codebook import CodebookLoss
from smalti.losses.commitment import CommitmentLoss
from smalti.losses.entropy import Entropy
from smalti.losses.hinge import HingeDiscriminator, HingeGenerator
from smalti.losses.kl import KL
from smalti.losses.l1 import L1
from smalti.losses.scaled_nll import Distance, ScaledNLL
from smalti.models.autoencoder import Autoencoder
from smalti.models.conv import ConvDecoder, ConvEncoder
from smalti.nn.distributed import rank, world_size
from smalti.objectives import Adaptive, DiscriminatorPhase, GeneratorPhase, Term
from smalti.quantizers import Quantizer, nearest
from smalti.quantizers.fsq import FSQ
from smalti.quantizers.gumbel import Anneal, Gumbel
from smalti.quantizers.nearest import Nearest
from smalti.quantizers.residual import Residual

Space = Literal["codes", "gaussian", "residual", "fsq", "gumbel"]
SIDE = 16


class Gradients(ImageSource):
    """Colour gradients of 20 px, each item's own."""

    def __init__(self, count: int = 10) -> None:
        self.count = count
        self.names = tuple(f"gradient {index}" for index in range(count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        ramp = np.arange(20)
        planes = [(ramp[:, None] * (3 + index) + ramp[None] * (2 * channel + 1)) % 256 for channel in range(3)]
        return {"image": Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))}


def tiny_model(space: Space = "codes", dropout: float = 0.0, revival: bool = False) -> Autoencoder:
    sizes: dict[str, Any] = {
        "channels": 8,
        "multipliers": (1, 1),
        "blocks": 1,
        "middle_attention": False,
        "middle_blocks": 1,
        "groups": 4,
    }
    return Autoencoder(
        ConvEncoder(out_channels=8, dropout=dropout, **sizes),
        Gaussian(in_channels=8, latent_channels=4) if space == "gaussian" else tokens(space, revival),
        ConvDecoder(latent_channels=4, z_channels=8, **sizes),
    )


def tokens(space: Space, revival: bool) -> Bottleneck:
    """One codebook with codes of 4 channels."""
    moving: dict[str, Any] = {
        "ema": nearest.EMA(decay=0.8),
        "revival": nearest.Revival(patience=2),
        "init": "kmeans",
    }
    made: dict[Space, Callable[[], Quantizer]] = {
        "codes": lambda: Nearest(size=16, channels=4, **(moving if revival else {"init": "normal"})),
        "residual": lambda: Residual(quantizer=Nearest(size=8, channels=4, **moving), steps=3, dropout=0.5),
        "fsq": lambda: FSQ(levels=[5, 4, 3, 3]),
        "gumbel": lambda: Gumbel(size=16, channels=4, temperature=Anneal(updates=5)),
    }
    return Tokens(in_channels=8, codebooks={"codebook": Branch(quantizer=made[space]())})


def terms(space: Space, start: int = 2, balanced: bool = True, averages: bool = False) -> dict[str, list[Term]]:
    adaptive = Adaptive(reference=["pixel"], eps=1e-4, clamp=1e4, reduce="mean")
    by_space = {
        "codes": [
            Term(name="pixel", loss=L1()),
            *([] if averages else [Term(name="codebook", loss=CodebookLoss())]),
            Term(name="commitment", loss=CommitmentLoss(), weight=0.25),
            Term(name="entropy", loss=Entropy(temperature=0.5, gather=True), weight=0.05),
        ],
        "residual": [
            Term(name="pixel", loss=L1()),
            Term(name="commitment", loss=CommitmentLoss(), weight=0.25),
            Term(name="entropy", loss=Entropy(temperature=0.5, gather=True), weight=0.05),
        ],
        "fsq": [Term(name="pixel", loss=L1())],
        "gumbel": [Term(name="pixel", loss=L1()), Term(name="kl", loss=CategoricalKL(), weight=5e-4)],
        "gaussian": [
            Term(name="pixel", loss=ScaledNLL(distances={"l1": Distance(loss=L1(reduction="none"))}, scale="learned")),
            Term(name="kl", loss=KL(), weight=1e-3),
        ],
    }
    adversary = Term(
        name="adversary", loss=HingeGenerator(), weight=0.5, start=start, adaptive=adaptive if balanced else None
    )
    judge = Term(name="judge", loss=HingeDiscriminator(), weight=0.5, start=1)
    return {"generator": [*by_space[space], adversary], "discriminator": [judge]}


def tiny_trainer(
    out: Path,
    *,
    space: Space = "codes",
    norm: Literal["batch", "none"] = "batch",
    batch_size: int = 4,
    workers: int = 0,
    dropout: float = 0.1,
    balanced: bool = True,
    revival: bool = False,
    cycle: Sequence[Any] = ("generator", "discriminator"),
    validation: ValidationSettings | None = None,
    held_out_images: int = 3,
    optimizer: PhaseOptimizer | None = None,
    recipe: Mapping[str, Any] | None = None,
    extra: Sequence[Term] = (),
    source: ImageSource | None = None,
    held_out_source: ImageSource | None = None,
    **settings: Any,
) -> Trainer:
    """A trainer of the tiny tokenizer; ``settings`` are those of the engine."""
    torch.manual_seed(1234)
    model = tiny_model(space, dropout, revival)
    critic = Patch(channels=8, layers=1, norm=norm)
    named = terms(space, balanced=balanced, averages=revival)
    phases = {
        "generator": GeneratorPhase(model, [*named["generator"], *extra], discriminator=critic),
        "discriminator": DiscriminatorPhase(critic, named["discriminator"], model=model),
    }
    spec = optimizer or PhaseOptimizer(lr=2e-3, betas=(0.5, 0.9), clip=1.0)
    options: dict[str, Any] = {"max_steps": 6, "log_every": 1, "sample_every": 0, "checkpoint_every": 0}
    options |= {"deterministic": torch.cuda.is_available()} | settings  # equal runs are equal bit for bit there, too
    transform = Transform(size=SIDE, crop="random", flip=True)
    given = source or Gradients()
    sources: dict[str, Any] = {"data.source": given}

    def loader(*, rank: int, world_size: int) -> BatchLoader:
        return BatchLoader(
            given,
            transform,
            batch_size=batch_size,
            seed=0,
            rank=rank,
            world_size=world_size,
            workers=workers,
        )

    held_out = None
    if validation is not None:
        whole = Transform(size=SIDE, crop="center")
        measured = sources["validation.data.source"] = held_out_source or Gradients(held_out_images)
        held_out = Validation(
            batches=lambda: evaluation_batches(measured, whole, 2, rank(), world_size()),
            settings=validation,
            images=getattr(measured, "names", ()),
        )
    return Trainer(
        phases=phases,
        model=model,
        loader=loader,
        optimizers={"generator": spec, "discriminator": spec},
        settings=EngineSettings(**options),
        out=out,
        cycle=cycle,
        validation=held_out,
        recipe={"tiny": space} if recipe is None else recipe,
        sources=sources,
        quiet=True,
    )


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """All that training changes: weights, buffers, state of terms, moments and steps of optimizers, averages."""
    found: dict[str, Tensor] = {}
    for name, phase in trainer.phases.items():
        found |= {f"{name}.{key}": value.clone() for key, value in phase.state_dict().items()}
    for name, player in trainer.players.items():
        for number, moments in player.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{name}.{number}.{key}": value.clone() for key, value in moments.items()}
    if trainer.ema is not None:
        found |= {f"ema.{key}": value.clone() for key, value in trainer.ema.state_dict().items()}
        found["ema_updates"] = trainer.ema.updates.clone()
    return found


def differences(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Names of what is not bit for bit equal."""
    odd = sorted(first.keys() ^ second.keys())
    return odd + [name for name in first if name in second and not torch.equal(first[name], second[name])]


def spoil(module: nn.Module) -> None:
    """Makes every pass of ``module`` give NaN, until ``heal``."""
    module.register_forward_hook(lambda part, inputs, output: output * float("nan"))
