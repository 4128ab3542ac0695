"""Twenty critic steps of WGAN, by clipping and by penalty, in two schedules: through the real Trainer, as recorded."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smalti.discriminators.mlp import MLP
from smalti.engine.settings import EngineSettings, PhaseOptimizer
from smalti.engine.trainer import Trainer
from smalti.losses.gradient_penalty import GradientPenalty
from smalti.losses.wgan import WGANDiscriminator, WGANGenerator
from smalti.models.mlp_generator import MLPGenerator
from smalti.objectives.phases import DiscriminatorPhase, GeneratorPhase
from smalti.objectives.term import Term

IMAGE = (1, 2, 3)  # the golden samples are vectors of 6
CRITIC_STEPS, CRITICS = 20, 5
CLIP = 0.01
TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-10}
CASES = [
    pytest.param(method, schedule, dtype, id=f"{method}-{schedule}-{dtype}".replace("torch.", ""))
    for method, schedule in (("clip_rmsprop", "paper"), ("clip_rmsprop", "ptgan"), ("gp_adam", "ptgan"))
    for dtype in (torch.float32, torch.float64)
]


class Recorded:
    """A loader of given micro-batches, in the order in which the updates draw them."""

    def __init__(self, golden: Mapping[str, Tensor], schedule: str) -> None:
        self.golden, self.schedule = golden, schedule

    def batches(self, start: int = 0) -> Iterator[dict[str, Any]]:
        for step in range(start, CRITIC_STEPS):
            yield self._batch(step, step)
            if self.schedule == "paper" and (step + 1) % CRITICS == 0:
                yield self._batch(step, CRITIC_STEPS + step)  # the generator's own noise

    def _batch(self, step: int, noise: int) -> dict[str, Any]:
        batch: dict[str, Any] = {
            "image": self.golden["real"][step].reshape(-1, *IMAGE),
            "noise": self.golden["z"][noise],
            "position": torch.arange(16) + 16 * step,
        }
        if "eps" in self.golden:
            batch["epsilon"] = self.golden["eps"][step].flatten()
        return batch


def trainer_of(golden: Mapping[str, Tensor], method: str, schedule: str, dtype: torch.dtype, out: Path) -> Trainer:
    model = MLPGenerator(image_size=(2, 3), image_channels=1, latent_size=4, widths=(24, 24), norm="none")
    critic = MLP(image_size=(2, 3), in_channels=1, widths=(24, 24))
    for player, network in (("G", model), ("D", critic)):
        prefix = f"init/{player}/"
        state = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
        network.main.double().load_state_dict(state)
    judge = [Term(name="wgan", loss=WGANDiscriminator())]
    if method == "gp_adam":
        judge += [
            Term(name="penalty", loss=GradientPenalty(), weight=10.0, inputs={"epsilon": "batch.epsilon"}),
        ]
    clips = method == "clip_rmsprop"
    optimizer = (
        PhaseOptimizer(type="rmsprop", lr=5e-5) if clips else PhaseOptimizer(type="adam", lr=2e-4, betas=(0.5, 0.999))
    )
    critics: dict[str, Any] = {"phase": "discriminator", "weight_clip": CLIP if clips else None}
    cycle: list[Any] = [critics | {"repeat": CRITICS}, "generator"]
    if schedule == "ptgan":
        cycle = [critics, {"phase": "generator", "reuse": True}, critics | {"repeat": CRITICS - 1}]
    settings = EngineSettings(
        max_steps=CRITIC_STEPS // CRITICS,
        device="cpu",  # where the recording was made
        batches="fresh",
        precision="fp64" if dtype is torch.float64 else "fp32",
        sample_every=0,
        checkpoint_every=0,
    )
    return Trainer(
        phases={
            "generator": GeneratorPhase(model, [Term(name="wgan", loss=WGANGenerator())], discriminator=critic),
            "discriminator": DiscriminatorPhase(critic, judge, model=model),
        },
        model=model,
        loader=lambda *, rank, world_size: Recorded(golden, schedule),
        optimizers={"generator": optimizer, "discriminator": optimizer},
        settings=settings,
        out=out,
        cycle=cycle,
        quiet=True,
    )


def record(trainer: Trainer, schedule: str) -> dict[str, list[Tensor]]:
    """Flat parameters of both players after every critic step, its generator update included as in the recording."""
    found: dict[str, list[Tensor]] = {"D": [], "G": []}
    networks: dict[str, Any] = {"D": trainer.phases["discriminator"].network, "G": trainer.model}

    def note(replace: bool) -> None:
        for player, network in networks.items():
            flat = nn.utils.parameters_to_vector(network.main.parameters()).detach().clone()
            found[player][-1 if replace else len(found[player]) :] = [flat]

    def after(name: str, play: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            turn = play(*args, **kwargs)
            note(replace=name == "generator")
            return turn

        return wrapped

    for name, player in trainer.players.items():
        player.play = after(name, player.play)  # type: ignore[method-assign]
    trainer.run()
    return found


@pytest.mark.parametrize(("method", "schedule", "dtype"), CASES)
def test_trajectory_is_the_recorded_one(golden, tmp_path, method, schedule, dtype) -> None:
    suffix = "_f64" if dtype is torch.float64 else ""
    recorded = golden(f"losses/traj_wgan_{method}_{schedule}{suffix}.safetensors")
    found = record(trainer_of(recorded, method, schedule, dtype, tmp_path / "run"), schedule)
    for player in ("D", "G"):
        assert len(found[player]) == CRITIC_STEPS
        for step, values in enumerate(found[player]):
            assert values.dtype is dtype
            expected = recorded[f"{player}_after/{step:02d}"]
            torch.testing.assert_close(values.cpu(), expected.to(dtype), rtol=0.0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("schedule", ["paper", "ptgan"])
def test_losses_are_those_of_the_recorded_log(golden, tmp_path, schedule) -> None:
    name = f"wgan_clip_rmsprop_{schedule}"
    recorded = golden(f"losses/traj_{name}_f64.safetensors")
    rows = golden("losses/trajectories.json")[f"{name}_f64"]["rows"]
    trainer = trainer_of(recorded, "clip_rmsprop", schedule, torch.float64, tmp_path / "run")
    trainer._prepare_to_train()
    turns = trainer.run_cycle()
    critics = [turn for turn in turns if turn.phase == "discriminator"]
    generators = [turn for turn in turns if turn.phase == "generator"]
    for turn, row in zip(critics, rows, strict=False):
        report = turn.reports[0]
        assert report.total.item() == pytest.approx(row[0], abs=1e-8)
        assert report.measures["logits_real"].item() == pytest.approx(row[4], abs=1e-8)
        assert report.measures["logits_fake"].item() == pytest.approx(row[5], abs=1e-8)
    expected = next(row[3] for row in rows if row[3] is not None)
    assert generators[0].reports[0].total.item() == pytest.approx(expected, abs=1e-8)
