"""Tiny networks and recipes in double precision, and the textbook form that a phase must equal."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smalti.losses.codebook import CodebookLoss
from smalti.losses.commitment import CommitmentLoss
from smalti.losses.hinge import HingeDiscriminator, HingeGenerator
from smalti.losses.kl import KL
from smalti.losses.l1 import L1
from smalti.losses.mse import MSE
from smalti.losses.scaled_nll import Distance, ScaledNLL
from smalti.objectives import Adaptive, Clock, DiscriminatorPhase, GeneratorPhase, Term
from smalti.outputs import AutoencoderOutput, BottleneckOutput, CodebookRecord, DiagonalGaussian, DiscriminatorOutput

NOW = Clock(10, 0)


class ToyModel(nn.Module):
    """Convolution, a Gaussian and a codebook on halves of the channels, transposed convolution, tanh, convolution."""

    judged = "reconstruction"

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 6, 4, stride=2, padding=1)
        self.codes = nn.Parameter(torch.randn(5, 2))
        self.decoder = nn.ConvTranspose2d(4, 6, 4, stride=2, padding=1)
        self.last = nn.Conv2d(6, 3, 3, padding=1)
        self.updates: list[Sequence[Any]] = []

    @property
    def last_layer(self) -> nn.Parameter:
        return self.last.weight

    def training_forward(self, batch: Mapping[str, Any]) -> AutoencoderOutput:
        moments, z = self.encoder(batch["image"]).split([4, 2], dim=1)
        posterior = DiagonalGaussian.from_moments(moments)
        flat = z.permute(0, 2, 3, 1).reshape(-1, 2)
        indices = torch.cdist(flat, self.codes).argmin(dim=1).view(z.shape[0], *z.shape[2:])
        quantized = self.codes[indices].permute(0, 3, 1, 2)
        latent = quantized.detach() + (z - z.detach())
        record = CodebookRecord(z=z, quantized=quantized, latent=latent, codebook=self.codes, indices=indices)
        joint = torch.cat([posterior.sample(batch.get("noise")), latent], dim=1)
        bottleneck = BottleneckOutput(
            latent=joint, indices=indices[:, None], codebooks={"visual": record}, posterior=posterior
        )
        return AutoencoderOutput(
            reconstruction=self.last(self.decoder(joint).tanh()),
            bottleneck=bottleneck,
            heads={"toy": joint.mean(dim=(2, 3))},
        )

    def update(self, records: Sequence[Any]) -> None:
        self.updates.append(records)


class ToyCritic(nn.Module):
    """Convolution, BatchNorm, convolution; takes a condition image if ``extra`` channels are given."""

    def __init__(self, extra: int = 0, norm: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(3 + extra, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.second = nn.Conv2d(4, 1, 3, padding=1)
        self.calls = 0

    def forward(self, images: Tensor, condition: Tensor | None = None) -> DiscriminatorOutput:
        self.calls += 1
        x = images if condition is None else torch.cat([images, condition], dim=1)
        x = nn.functional.leaky_relu(self.norm(self.first(x)), 0.2)
        return DiscriminatorOutput(logits=self.second(x), features=(x,))


def batch_of(size: int = 3) -> dict[str, Tensor]:
    return {
        "image": torch.rand(size, 3, 8, 8, dtype=torch.float64) * 2 - 1,
        "condition": torch.rand(size, 2, 8, 8, dtype=torch.float64),
        "weights": torch.rand(size, 1, 1, 1, dtype=torch.float64) + 0.5,
        "noise": torch.randn(size, 2, 4, 4, dtype=torch.float64),
    }


def nll(scale: str = "learned") -> ScaledNLL:
    return ScaledNLL(
        distances={"l1": Distance(L1(reduction="none"))}, scale=scale, log_scale=0.3 if scale != "analytic" else 0.0
    )


def generator_terms(adaptive: bool = True, weighted: bool = True) -> list[Term]:
    options = Adaptive(reference=["nll", "mse"]) if adaptive else None
    return [
        Term(name="nll", loss=nll(), inputs={"weight": "batch.weights"} if weighted else {}, weight=2.0),
        Term(name="mse", loss=MSE(), weight=0.7),
        Term(name="odd", loss=lambda prediction: prediction.pow(3).mean(), weight=0.2),
        Term(name="kl", loss=KL(), weight=0.1),
        Term(name="codebook", loss=CodebookLoss(), weight=1.3),
        Term(name="commitment", loss=CommitmentLoss(), weight=0.25),
        Term(name="gan", loss=HingeGenerator(), weight=0.8, adaptive=options),
    ]


def discriminator_terms() -> list[Term]:
    return [Term(name="gan", loss=HingeDiscriminator(), weight=0.5)]


def phases(
    terms: Sequence[Term] | None = None, condition: str | None = "condition", critic: ToyCritic | None = None
) -> tuple[GeneratorPhase, DiscriminatorPhase]:
    model = ToyModel().double()
    critic = critic or ToyCritic(2 if condition else 0)
    critic = critic.double()
    terms = generator_terms() if terms is None else terms
    generator = GeneratorPhase(model, terms, discriminator=critic, condition=condition).double()
    return generator, DiscriminatorPhase(critic, discriminator_terms(), model=model, condition=condition).double()


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    return {name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()}


def assert_same_gradients(ours: Mapping[str, Tensor | None], theirs: Mapping[str, Tensor | None], rel: float) -> None:
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient is not None, name
        assert ours[name] is not None, name
        error = (ours[name] - gradient).norm() / gradient.norm().clamp_min(1e-30)
        assert error <= rel, (name, float(error))
