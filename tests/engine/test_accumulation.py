"""Accumulation says once, at the start, for what it is not the same as one larger batch."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import Tensor, nn

import smalti
from smalti.discriminators.mlp import MLP
from smalti.discriminators.patch import Patch
from smalti.discriminators.stylegan2 import StyleGAN2
from smalti.engine.diagnostics import accumulation_warnings
from smalti.losses import Loss
from smalti.losses.entropy import Entropy
from smalti.losses.hinge import HingeDiscriminator, HingeGenerator
from smalti.losses.info_nce import InfoNCE
from smalti.losses.l1 import L1
from smalti.losses.mse import MSE
from smalti.losses.relativistic_average import RelativisticAverageDiscriminator, RelativisticAverageGenerator
from smalti.losses.softmax_gan import SoftmaxGANDiscriminator
from smalti.models.mlp_generator import MLPGenerator
from smalti.objectives import Adaptive
from smalti.objectives.phases import DiscriminatorPhase, GeneratorPhase, Phase
from smalti.objectives.term import Term

TINY = Path(__file__).parents[1] / "cli" / "tiny.yaml"


def phases(
    terms: list[Term], judging: Loss | None = None, norm: Any = "none", judge: nn.Module | None = None
) -> dict[str, Phase]:
    model = MLPGenerator(image_size=16, image_channels=3, latent_size=3, widths=(8, 8), norm=norm)
    critic = judge or MLP(image_size=16, widths=(8,))
    return {
        "generator": GeneratorPhase(model, terms, discriminator=critic),
        "discriminator": DiscriminatorPhase(
            critic, [Term(name="adversarial", loss=judging or HingeDiscriminator())], model=model
        ),
    }


def plain() -> Term:
    return Term(name="adversarial", loss=HingeGenerator())


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (phases([Term(name="even", loss=Entropy())]), "term 'even': the mean assignment"),
        (phases([Term(name="near", loss=InfoNCE())]), "term 'near': the other images"),
        (
            phases([Term(name="adversarial", loss=RelativisticAverageGenerator())]),
            "term 'adversarial': the mean logits",
        ),
        (phases([plain()], RelativisticAverageDiscriminator()), "discriminator: .*term 'adversarial': the mean logits"),
        (phases([plain()], SoftmaxGANDiscriminator()), "discriminator: .*one softmax"),
        (phases([Term(name="pixel", loss=L1(), inputs={"weight": "batch.weights"})]), "term 'pixel': under a `weight`"),
        (phases([Term(name="pixel", loss=MSE(reduction="sum"))]), "term 'pixel': with `reduction: sum`"),
        (phases([plain()], norm="batch"), r"main\.3: mean and deviation of a batch normalisation"),
        (phases([plain()], judge=Patch(channels=4, layers=2)), r"main\.3 and 1 more: mean and deviation of a batch"),
        (
            phases([plain()], judge=StyleGAN2(image_size=16, channel_base=16, max_channels=4)),
            "deviation: how much the images of a group differ",
        ),
    ],
)
def test_what_looks_at_a_whole_batch_is_named(made: dict[str, Phase], said: str) -> None:
    (found,) = accumulation_warnings(made, 4)
    assert "accumulate: 4 is not one larger batch" in found
    assert re.search(said, found)
    assert accumulation_warnings(made, 1) == []


def test_means_over_samples_are_not_warned_of() -> None:
    weighted = L1(weighting="mean_of_weighted"), L1(per_sample=True)
    terms = [Term(name=f"pixel{i}", loss=loss, inputs={"weight": "batch.w"}) for i, loss in enumerate(weighted)]
    made = phases([plain(), *terms, Term(name="own", loss=nn.MSELoss(), inputs={"input": "prediction"})])
    assert accumulation_warnings(made, 8) == []
    frozen = phases([plain()], norm="batch")
    frozen["generator"].network.eval()
    assert accumulation_warnings(frozen, 8) == []


def test_an_adaptive_weight_is_one_of_each_micro_batch() -> None:
    adversarial = Term(name="adversarial", loss=HingeGenerator(), adaptive=Adaptive(reference=("pixel",)))
    made = phases([Term(name="pixel", loss=L1()), adversarial])
    assert "term 'adversarial': its adaptive weight is a ratio of norms" in accumulation_warnings(made, 2)[0]


class Compared(Loss):
    """A loss from elsewhere that says what it looks at."""

    batch_statistics: ClassVar[Mapping[str, str]] = {"": "how the images are ranked"}

    def forward(self, prediction: Tensor) -> Tensor:
        return prediction.flatten().sort().values[0]


def test_a_loss_and_a_layer_from_elsewhere_say_so_themselves() -> None:
    assert "how the images are ranked" in accumulation_warnings(phases([Term(name="own", loss=Compared())]), 2)[0]
    made = phases([plain()])
    made["generator"].network.add_module("own", nn.Sequential(nn.SyncBatchNorm(3)))
    assert "own.0: mean and deviation" in accumulation_warnings(made, 2)[0]


def test_a_run_says_it_once(tmp_path: Path) -> None:
    even = "objective.generator.even={type: entropy}"
    smalti.train(TINY, [even, "engine.accumulate=2", "engine.max_steps=2"], out=tmp_path / "run", quiet=True)
    smalti.train(
        TINY, [even, "engine.accumulate=2", "engine.max_steps=4"], out=tmp_path / "run", quiet=True, resume=True
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [line["warning"] for line in lines if "warning" in line]
    assert len(told) == 1
    assert told[0].startswith("generator: accumulate: 2 is not one larger batch")
    assert "term 'even': the mean assignment of its tokens" in told[0]
