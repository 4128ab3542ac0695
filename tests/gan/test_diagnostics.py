"""Planted failures are named, with advice; healthy runs are left in peace; looking changes nothing."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.diagnosis import Diagnosis
from smalti.discriminators.dcgan import DCGAN
from smalti.discriminators.mlp import MLP
from smalti.engine.diagnosis.signals import slopes_under_batch_norm
from smalti.engine.diagnostics import clipped_shares
from smalti.losses.gradient_penalty import GradientPenalty
from smalti.models.mlp_generator import MLPGenerator
from smalti.objectives.critic import critic_measures
from smalti.objectives.term import Term
from smalti.outputs import DiscriminatorOutput
from tests.gan.toys import tiny_gan, weights

PENALTY = Term(name="penalty", loss=GradientPenalty(), weight=10.0)


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def warnings_of(folder: Path) -> str:
    return " | ".join(line["warning"] for line in log_of(folder) if "warning" in line)


def test_planted_collapsed_generator_is_caught(tmp_path: Path) -> None:
    model = MLPGenerator(image_size=4, image_channels=1, latent_size=3, widths=(8,), norm="none")
    with torch.no_grad():
        model.main[0].weight.zero_()  # the noise is not listened to
    trainer = tiny_gan(tmp_path / "run", model=model, rates=(1e-9, 1e-3), max_steps=9)
    trainer.run()
    assert "hardly differ" in warnings_of(tmp_path / "run")


def test_clipping_that_starves_the_generator_is_named_with_the_bound(tmp_path: Path) -> None:
    cycle = [{"phase": "discriminator", "weight_clip": 1e-4}, "generator"]
    tiny_gan(tmp_path / "run", cycle=cycle, max_steps=4).run()
    assert "raise weight_clip" in warnings_of(tmp_path / "run")
    last = log_of(tmp_path / "run")[-1]
    assert last["train/discriminator/clipped"] > 0.5 or last["train/discriminator/critic/slope_max"] < 1e-3
    assert 0.0 <= last["train/discriminator/clipped/network.main.0.weight"] <= 1.0


def test_healthy_run_gets_no_warning_and_says_what_its_critic_does(tmp_path: Path) -> None:
    tiny_gan(tmp_path / "run", critic_terms=[PENALTY], max_steps=6).run()
    assert warnings_of(tmp_path / "run") == ""
    last = log_of(tmp_path / "run")[-1]
    numbers = {name.removeprefix("train/discriminator/critic/") for name in last if "/critic/" in name}
    assert numbers >= {"estimate", "estimate_smoothed", "estimate_per_slope", "slope_max", "accuracy_fake", "diversity"}
    assert last["train/discriminator/critic/estimate"] == pytest.approx(
        last["train/discriminator/logits_real"] - last["train/discriminator/logits_fake"], abs=1e-5
    )


def test_batch_normalisation_under_a_gradient_penalty_is_named_at_the_first_step(tmp_path: Path) -> None:
    found = {}
    for norm in ("batch", "group"):
        model = MLPGenerator(image_size=16, image_channels=1, latent_size=3, widths=(8,), norm="none")
        critic = DCGAN(image_size=16, in_channels=1, channels=4, norm=norm)  # type: ignore[arg-type]
        options: dict[str, Any] = {"model": model, "critic": critic, "shape": (1, 16, 16), "max_steps": 1}
        tiny_gan(tmp_path / norm, critic_terms=[PENALTY], **options).run()
        found[norm] = warnings_of(tmp_path / norm)
    assert "norm: none or norm: group" in found["batch"]
    assert "norm" not in found["group"]
    assert slopes_under_batch_norm(tiny_gan(tmp_path / "clip").phases) == {}


@pytest.mark.parametrize(
    ("numbers", "advice"),
    [
        ({"logits_real": 0.0, "logits_fake": 1e-5, "total": 2.0}, "says nothing"),
        (
            {"logits_real": 0.5, "logits_fake": 0.5, "critic/slope_max": 0.0},
            "says nothing",
        ),  # LSGAN's, with labels 0, 1
        ({"total": 0.001, "critic/accuracy_real": 1.0, "critic/accuracy_fake": 1.0}, "wins"),
        ({"critic/diversity": 0.01, "critic/apart": 1.0}, "hardly differ"),
        ({"clipped": 0.9, "critic/slope_max": 1.0}, "starves"),
    ],
)
def test_alarm_is_raised_once_and_again_only_after_it_was_over(numbers: dict[str, float], advice: str) -> None:
    diagnosis = Diagnosis()
    steps = itertools.count(0, 50)

    def look(values: dict[str, float]) -> list[str]:
        record = {f"train/discriminator/{name}": value for name, value in ({"total": 1.0} | values).items()}
        return [finding.line() for finding in diagnosis.take({"step": next(steps), **record}) if finding.over is None]

    said = [text for _ in range(9) for text in look(numbers)]
    assert len(said) == 1
    assert advice in said[0]
    assert look({}) == []
    assert [text for _ in range(9) for text in look(numbers)] == []  # one good step is not yet the end of it
    assert [text for _ in range(9) for text in look({})] == []
    assert diagnosis.standing == []
    assert len([text for _ in range(9) for text in look(numbers)]) == 1


def test_slope_of_a_linear_critic_is_its_weight_and_the_estimate_per_slope_a_distance() -> None:
    direction = torch.tensor([3.0, 4.0], dtype=torch.float64).reshape(1, 1, 1, 2)
    real = torch.randn(6, 1, 1, 2, dtype=torch.float64)
    fake = real - 2.0 * direction / 5.0
    found = critic_measures(lambda x: DiscriminatorOutput(logits=(x * direction).sum((1, 2, 3))), real, fake)
    for where in ("real", "fake", "between", "max"):
        assert found[f"critic/slope_{where}"].item() == pytest.approx(5.0)
    assert found["critic/estimate_per_slope"].item() == pytest.approx(2.0)
    assert found["critic/diversity"].item() == pytest.approx(1.0)


@pytest.mark.parametrize("critic", ["batch", "spectral"])
def test_looking_changes_nothing(tmp_path: Path, critic: str) -> None:
    found = []
    for log_every in (1, 100):
        torch.manual_seed(3)
        network = DCGAN(
            image_size=16,
            in_channels=1,
            channels=4,
            norm="batch" if critic == "batch" else "none",
            spectral_norm=critic == "spectral",
        )
        model = MLPGenerator(image_size=16, image_channels=1, latent_size=3, widths=(8,), norm="batch")
        trainer = tiny_gan(
            tmp_path / f"{log_every}", model=model, critic=network, shape=(1, 16, 16), max_steps=4, log_every=log_every
        )
        trainer.run()
        found.append(weights(network) | weights(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_share_of_clipped_weights_counts_those_at_the_bound() -> None:
    critic = MLP(image_size=2, in_channels=1, widths=(3,))
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.fill_(0.1)
        critic.main[0].weight[0] = 0.05
    shares = clipped_shares(dict(critic.named_parameters()), 0.1)
    assert shares["clipped/main.0.weight"].item() == pytest.approx(2 / 3)
    assert shares["clipped"].item() == pytest.approx(1 - 4 / 19)
