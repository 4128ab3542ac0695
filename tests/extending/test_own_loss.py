"""Losses from a user's file, by import path, through the real trainer."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.engine.trainer import Trainer
from tests.extending import own

GAN = """
model: {type: mlp_generator, image_size: 8, image_channels: 1, latent_size: 4, widths: [16], norm: none}
discriminator: {type: mlp, image_size: 8, in_channels: 1, widths: [16]}
objective:
  generator: {adversarial: {type: wgan}}
  discriminator:
    adversarial: {type: wgan}
    shift: {type: tests.extending.own.shift, inputs: {scores: logits_real}, rest: 0.25, weight: 0.5, start: 1}
    both: {type: tests.extending.own.Shift, options: {weight: 2.0}, weight: 0.125}
data: {source: {type: digits}, transform: {size: 8, crop: center}, batch_size: 2}
optim: {generator: {lr: 1.0e-3}, discriminator: {lr: 1.0e-3}}
cycle: [discriminator, generator]
engine: {max_steps: 3, log_every: 1, sample_every: 0, checkpoint_every: 0, batches: fresh}
"""

VQ = """
model:
  type: autoencoder
  encoder: {type: conv, patch_size: 4, channels: 8, multipliers: [1], blocks: 1, middle_blocks: 0,
            middle_attention: false, groups: 4, out_channels: 8}
  bottleneck: {type: tokens, in_channels: 8, codebooks: {codebook: {quantizer: {type: nearest, size: 8, channels: 4}}}}
  decoder: {type: conv, patch_size: 4, channels: 8, multipliers: [1], blocks: 1, middle_blocks: 0,
            middle_attention: false, groups: 4, latent_channels: 4, z_channels: 8}
discriminator: {type: patch, channels: 8, layers: 1, norm: none}
objective:
  generator:
    pixel: {type: l1}
    codebook: {type: codebook}
    commitment: {type: commitment, weight: 0.25}
    adversarial: {type: hinge, adaptive: {reference: [pixel]}}
  discriminator: {adversarial: {type: hinge}}
data: {source: {type: photos, include: [china]}, transform: {size: 16, crop: random}, batch_size: 2}
optim: {generator: {lr: 1.0e-3}, discriminator: {lr: 1.0e-3}}
engine: {max_steps: 3, log_every: 1, sample_every: 0, checkpoint_every: 0}
"""


def train(folder: Path, text: str, *overrides: str) -> tuple[Trainer, list[dict[str, Any]]]:
    """The trainer after its run, and the lines of its log."""
    folder.mkdir()
    (folder / "own.yaml").write_text(text)
    trainer = assemble(load_recipe(folder / "own.yaml", overrides), folder / "run", quiet=True)
    trainer.run()
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    return trainer, [json.loads(line) for line in lines]


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value for name, phase in trainer.phases.items() for key, value in phase.state_dict().items()
    }


def test_a_function_and_a_module_by_import_path_are_trained_and_logged(tmp_path: Path) -> None:
    _, log = train(tmp_path / "a", GAN)
    assert [line["train/discriminator/shift/status"] for line in log] == ["waiting", "active", "active"]
    for line in log:
        both = line["train/discriminator/both/real"] + line["train/discriminator/both/fake"]
        assert abs(line["train/discriminator/both/raw"] - both) < 1e-6, "2 (real + fake) / 2"
        assert abs(line["train/discriminator/both/weighted"] - both / 8) < 1e-6
    last = log[-1]
    parts = [last[f"train/discriminator/{name}/weighted"] for name in ("adversarial", "shift", "both")]
    assert abs(last["train/discriminator/total"] - sum(parts)) < 1e-5


def test_a_resolved_recipe_with_losses_from_elsewhere_reads_as_itself(tmp_path: Path) -> None:
    train(tmp_path / "a", GAN)
    stored = tmp_path / "a" / "run" / "recipe.yaml"
    recipe = load_recipe(stored)
    assert recipe.plain() == yaml.safe_load(stored.read_text())
    assert recipe.plain()["objective"]["discriminator"]["both"]["options"] == {"weight": 2.0}


def test_a_term_from_elsewhere_moves_what_it_should(tmp_path: Path) -> None:
    """Scores are pulled to where the spring rests."""
    mean = {}
    for rest in (-5.0, 5.0):
        shift = f"{{type: tests.extending.own.shift, inputs: {{scores: logits_real}}, rest: {rest}, weight: 100.0}}"
        overrides = (
            f"objective.discriminator.shift={shift}",
            "engine.max_steps=8",
            "optim.discriminator.lr=1e-2",
        )
        _, log = train(tmp_path / str(rest), GAN, *overrides)
        mean[rest] = log[-1]["train/discriminator/logits_real"]
    assert mean[5.0] - mean[-5.0] > 1.0


def test_watched_terms_change_no_weight(tmp_path: Path) -> None:
    watched = (
        "objective.generator.watch={type: tests.extending.own.watch, role: log, weight: 9.0,"
        " inputs: {codes: codebooks.codebook.z}}",
        "objective.discriminator.slope={type: gradient_penalty, role: log, weight: 9.0}",
        "objective.discriminator.seen={type: tests.extending.own.shift, role: log, inputs: {scores: logits_fake}}",
    )
    plain, _ = train(tmp_path / "plain", VQ)
    seeing, log = train(tmp_path / "watched", VQ, *watched)
    first, second = weights(plain), weights(seeing)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for name in ("generator/watch", "discriminator/slope", "discriminator/seen"):
        assert log[-1][f"train/{name}/raw"] > 0.0
        assert f"train/{name}/weighted" not in log[-1], "it adds nothing"


def test_lazy_terms_fire_however_many_updates_the_other_phase_has(tmp_path: Path) -> None:
    """Each counts updates of its own phase: the generator's acts at 2 of 8, the discriminator's at 4 of 16.

    MMagic's path length, at every 4th iteration of a discriminator that has two of them for each update of the
    generator, never meets one.
    """
    overrides = (
        "cycle=[discriminator*2, generator]",
        "engine.max_steps=8",
        "objective.generator.path={type: path_length, weight: 2.0, every: 4}",
        "objective.discriminator.lazy={type: tests.extending.own.counted, weight: 0.001, every: 4}",
    )
    own.CALLS.clear()
    trainer, log = train(tmp_path / "lazy", GAN, *overrides)
    assert [line["train/generator/path/status"] for line in log] == ["active", "skipped", "skipped", "skipped"] * 2
    assert {line["train/generator/path/weight"] for line in log} == {8.0, 0.0}
    assert trainer.phases["generator"].state_dict()["losses.path.mean"] > 0.0, "its running mean has moved"
    assert log[-1]["train/discriminator/updates"] == 16
    assert len(own.CALLS) == 4
