"""The loop: who moves when, what is counted, what a bad step leaves behind, what is written."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from smalti.engine.logging import MetricsFile, check_tracker
from smalti.engine.runtime import Runtime
from smalti.engine.samples import MARGIN
from smalti.engine.settings import EMASettings, PhaseOptimizer, ValidationSettings
from smalti.engine.trainer import Trainer
from smalti.objectives import Term
from smalti.registry import UserError
from tests.engine.toys import differences, everything, tiny_trainer


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


class Moves:
    """Notes each pass of each phase: name, clock, positions of the images, whether it was given fakes."""

    def __init__(self, trainer: Trainer) -> None:
        self.seen: list[tuple[str, int, int, tuple[int, ...], bool]] = []
        for name, phase in trainer.phases.items():
            phase.register_forward_pre_hook(self._note(name), with_kwargs=True)

    def _note(self, name: str) -> Any:
        def note(module: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            batch, clock = arguments
            positions = tuple(batch["position"].tolist())
            self.seen.append((name[0], clock.step, clock.updates, positions, named["fake"] is not None))

        return note


def test_autoencoder_cycle_shares_images_and_fakes(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=3, accumulate=2, batch_size=2)
    moves = Moves(trainer)
    trainer.run()
    # The discriminator's term starts at step 1: before that its phase is not even called.
    assert moves.seen == [
        ("g", 0, 0, (0, 1), False),
        ("g", 0, 0, (2, 3), False),
        ("g", 1, 1, (4, 5), False),
        ("g", 1, 1, (6, 7), False),
        ("d", 1, 0, (4, 5), True),
        ("d", 1, 0, (6, 7), True),
        ("g", 2, 2, (8, 9), False),
        ("g", 2, 2, (10, 11), False),
        ("d", 2, 1, (8, 9), True),
        ("d", 2, 1, (10, 11), True),
    ]
    assert trainer.state.as_dict() | {"seconds": 0, "averages": {}, "lazy": {}} == {
        "step": 3,
        "micro_batches": 6,
        "images": 12,
        "updates": {"generator": 3, "discriminator": 2},
        "skipped": {},
        "seconds": 0,
        "best_value": None,
        "best_step": None,
        "best_measured": {},
        "world_size": 1,
        "at_start": {},
        "measured": {},
        "measured_at": None,
        "due": [],
        "averages": {},
        "lazy": {},
        "failing": {"generator": 0, "discriminator": 0},
        "log_lines": 5,  # one for each step, and two warnings of what accumulation is not
        "started": {},
        "plateaus": {},
        "windows": [{}],
    }


def test_critic_cycle_draws_fresh_images(tmp_path: Path) -> None:
    trainer = tiny_trainer(
        tmp_path / "run", max_steps=2, batch_size=1, batches="fresh", cycle=["discriminator*2", "generator"]
    )
    moves = Moves(trainer)
    trainer.run()
    assert moves.seen == [
        ("g", 0, 0, (0,), False),
        ("d", 1, 0, (1,), False),
        ("d", 1, 1, (2,), False),
        ("g", 1, 1, (3,), False),
    ]


def test_discriminator_may_run_the_model_again(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=2, discriminator_fake="refresh")
    moves = Moves(trainer)
    trainer.run()
    assert moves.seen[-1] == ("d", 1, 0, (4, 5, 6, 7), False)


def test_weights_are_clamped_after_each_update(tmp_path: Path) -> None:
    cycle = ["generator", {"phase": "discriminator", "weight_clip": 0.01}]
    trainer = tiny_trainer(tmp_path / "run", max_steps=3, cycle=cycle)
    trainer.run()
    assert max(float(p.detach().abs().max()) for p in trainer.phases["discriminator"].parameters()) <= 0.01
    assert max(float(p.detach().abs().max()) for p in trainer.phases["generator"].parameters()) > 0.01


class Poison(nn.Module):
    """Its value is NaN at some steps."""

    def __init__(self, *steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, prediction: Tensor, step: int) -> Tensor:
        return prediction.mean() * (float("nan") if step in self.steps else 0.0)


def poisoned(out: Path, *steps: int, **options: Any) -> Trainer:
    return tiny_trainer(out, extra=[Term(name="poison", loss=Poison(*steps))], **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp64"])
def test_bad_step_changes_nothing_and_is_named(tmp_path: Path, precision: str) -> None:
    trainer = poisoned(tmp_path / "run", 3, max_steps=4, precision=precision, ema=EMASettings(decay=0.9))
    before: dict[str, Tensor] = {}
    cycle = trainer.run_cycle

    def watched(measure: bool = False) -> Any:
        if trainer.state.step == 3:
            before.update(everything(trainer))
        return cycle(measure)

    trainer.run_cycle = watched  # type: ignore[method-assign]
    trainer.run()
    changed = differences(before, everything(trainer))
    assert changed
    assert all(name.startswith(("discriminator.", "optimizer.discriminator.")) for name in changed)
    assert trainer.state.skipped == {"generator": 1}
    assert trainer.state.updates["generator"] == 4
    told = [record for record in records(tmp_path / "run") if "skipped" in record]
    assert told == [{"step": 4, "skipped": "generator: term 'poison' is not finite"}]
    assert records(tmp_path / "run")[-1]["train/generator/skipped_steps"] == 1
    assert records(tmp_path / "run")[-1]["train/generator/poison/raw"] is None


def test_buffers_spoilt_by_a_bad_pass_are_restored(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=3)
    buffers = {name: buffer for name, buffer in trainer.phases["discriminator"].named_buffers()}

    def bad(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        batch, clock = arguments
        return ({**batch, "image": batch["image"] * float("nan")}, clock) if clock.step == 2 else arguments

    trainer.phases["discriminator"].register_forward_pre_hook(bad)
    trainer.run()
    assert trainer.state.skipped == {"discriminator": 1}
    assert buffers
    assert all(bool(torch.isfinite(buffer).all()) for buffer in buffers.values())


def test_first_layer_with_a_bad_gradient_is_named(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run", max_steps=1)
    name, parameter = list(trainer.players["generator"].parameters.items())[3]
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    trainer.run()
    assert records(tmp_path / "run")[0]["skipped"] == f"generator: gradient of {name} is not finite"


def test_run_that_stays_bad_stops_at_the_last_good_checkpoint(tmp_path: Path) -> None:
    trainer = poisoned(tmp_path / "run", *range(4, 20), max_steps=20, skip_limit=3, checkpoint_every=2)
    with pytest.raises(UserError, match=r"3 updates in a row failed \(generator: term 'poison'.*checkpoints/00000004"):
        trainer.run()
    assert trainer.checkpoints.steps() == [2, 4, 6]


def test_bad_steps_with_good_ones_between_go_on(tmp_path: Path) -> None:
    assert poisoned(tmp_path / "run", 1, 2, 4, 5, max_steps=7, skip_limit=3).run().finished


def test_phase_without_a_trainable_part_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"optim\.discriminator"):
        Trainer(
            phases=tiny_trainer(tmp_path / "a").phases,
            model=nn.Identity(),
            loader=lambda *, rank, world_size: None,  # type: ignore[arg-type, return-value]
            optimizers={"generator": PhaseOptimizer(), "discriminator": None},
            settings=tiny_trainer(tmp_path / "b").settings,
            out=tmp_path / "run",
            cycle=["generator", "discriminator"],
        )


def test_best_checkpoint_survives_and_is_saved_when_it_is_found(tmp_path: Path) -> None:
    settings = ValidationSettings(every=1, monitor="score", mode="max")
    trainer = tiny_trainer(tmp_path / "run", max_steps=6, keep=1, validation=settings)
    scores = iter([0.1, math.nan, 0.9, 0.5, 0.9, 0.2])
    assert trainer.examiner.validation is not None
    object.__setattr__(trainer.examiner.validation, "measure", lambda model: {"score": next(scores)})
    trainer.run()
    assert trainer.checkpoints.steps() == [3, 6]
    assert (trainer.state.best_step, trainer.state.best_value) == (3, 0.9)


def test_unknown_monitor_is_an_error(tmp_path: Path) -> None:
    settings = ValidationSettings(every=1, monitor="generator/totl")
    with pytest.raises(UserError, match="did you mean 'generator/total'"):
        tiny_trainer(tmp_path / "run", max_steps=2, validation=settings).run()


def test_validation_and_pictures_leave_training_alone(tmp_path: Path) -> None:
    ema = EMASettings(decay=0.5)
    plain = tiny_trainer(tmp_path / "plain", max_steps=4, ema=ema, space="gaussian")
    plain.run()
    settings = ValidationSettings(every=1, at_start=True)
    watched = tiny_trainer(
        tmp_path / "watched", max_steps=4, ema=ema, space="gaussian", validation=settings, sample_every=1
    )
    watched.run()
    assert differences(everything(plain), everything(watched)) == []
    assert len(list((tmp_path / "watched" / "samples").glob("*.png"))) == 4


def test_run_folder_holds_what_it_promises(tmp_path: Path) -> None:
    recipe = {"model": {"type": "autoencoder"}, "engine": {"max_steps": 3}}
    trainer = tiny_trainer(
        tmp_path / "run",
        max_steps=3,
        checkpoint_every=2,
        sample_every=3,
        samples=2,
        ema=EMASettings(decay=0.9),
        validation=ValidationSettings(every=2, at_start=True),
        recipe=recipe,
    )
    result = trainer.run()
    folder = tmp_path / "run"
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "checkpoints",
        "environment.json",
        "evaluation.json",
        "metrics.jsonl",
        "model",
        "recipe.yaml",
        "samples",
    ]
    assert yaml.safe_load((folder / "recipe.yaml").read_text()) == recipe
    assert [record["step"] for record in records(folder)] == [0, 1, 2, 2, 3, 3]
    assert json.loads((folder / "evaluation.json").read_text()) == result.evaluation
    assert result.evaluation["images"] == ["gradient 0", "gradient 1", "gradient 2"]
    assert result.evaluation["step"] == 3
    with Image.open(folder / "samples" / "00000003.png") as picture:
        assert picture.size == (4 * 16 + 3 * MARGIN, 16)


def test_saved_model_has_the_averaged_weights(tmp_path: Path) -> None:
    from smalti.models.autoencoder import Autoencoder

    trainer = tiny_trainer(tmp_path / "run", max_steps=3, ema=EMASettings(decay=0.5))
    trainer.run()
    saved = Autoencoder.from_pretrained(tmp_path / "run" / "model")
    assert trainer.ema is not None
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, trainer.ema.shadow[name].cpu())


def test_log_has_every_term_raw_and_weighted(tmp_path: Path) -> None:
    tiny_trainer(tmp_path / "run", max_steps=3).run()
    last = records(tmp_path / "run")[-1]
    for term in ("pixel", "codebook", "commitment", "entropy", "adversary"):
        for name in ("raw", "weight", "weighted"):
            assert isinstance(last[f"train/generator/{term}/{name}"], float)
        assert last[f"train/generator/{term}/status"] == "active"
    expected = sum(last[f"train/generator/{term}/weighted"] for term in ("pixel", "codebook", "commitment", "entropy"))
    expected += last["train/generator/adversary/weighted"]
    assert last["train/generator/total"] == pytest.approx(expected, rel=1e-5)
    for name in (
        "step",
        "images",
        "seconds",
        "images_per_second",
        "eta_seconds",
        "train/generator/gradient_norm",
        "train/generator/learning_rate",
        "train/generator/skipped_steps",
        "train/discriminator/gradient_norm",
        "train/discriminator/logits_real",
        "train/discriminator/logits_fake",
        "train/codebook/codebook/usage",
        "train/codebook/codebook/perplexity",
    ):
        assert math.isfinite(last[name])
    assert records(tmp_path / "run")[0]["train/generator/adversary/status"] == "waiting"


def test_log_is_cut_after_the_restored_step(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.go_back(0)
    for step in (1, 2, 2, 3):
        file.write({"step": step, "value": math.inf if step == 1 else 0.5})
    with file.path.open("a") as end:
        end.write('{"step": 4, "val')
    file.go_back(9)
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 2, 3]
    assert records(tmp_path)[0]["value"] is None
    file.go_back(2)
    assert [record["step"] for record in records(tmp_path)] == [1, 2, 2]


def test_missing_tracker_is_refused_before_training() -> None:
    with pytest.raises(UserError, match=r"engine\.tracker='wandb'.*pip install wandb"):
        check_tracker("wandb")


def test_tensorboard_gets_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tiny_trainer(tmp_path / "run", max_steps=2, tracker="tensorboard").run()
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.*"))


def test_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path / "run")
    found = trainer.dry_run()
    rows = {row.place: row for row in found.rows}
    model = trainer.model
    assert rows["generator"].parameters == sum(p.numel() for p in model.parameters())
    assert rows["generator"].parameters == sum(
        rows[f"generator.{n}"].parameters for n in ("encoder", "bottleneck", "decoder")
    )
    assert rows["discriminator"].kind == "Patch"
    assert found.peak_bytes > 0
    assert f"one step on {trainer.runtime.device}" in found.table()
    assert not (tmp_path / "run").exists()


def test_equal_runs_are_equal(tmp_path: Path) -> None:
    first, second = (tiny_trainer(tmp_path / name, max_steps=4, space="gaussian") for name in "ab")
    first.run()
    torch.rand(7)
    second.run()
    assert differences(everything(first), everything(second)) == []


def test_other_seed_is_another_run(tmp_path: Path) -> None:
    first, second = (tiny_trainer(tmp_path / str(seed), max_steps=2, seed=seed) for seed in (0, 1))
    first.run()
    second.run()
    assert differences(everything(first), everything(second))


@pytest.mark.parametrize("revival", [False, True])
def test_deciding_on_the_device_equals_deciding_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revival: bool
) -> None:
    """What a GPU does, which is not asked between log steps whether a step was bad."""
    options: dict[str, Any] = {"max_steps": 8, "log_every": 4, "ema": EMASettings(decay=0.9), "revival": revival}
    host = poisoned(tmp_path / "host", 2, 4, 5, **options)
    host.run()
    device = poisoned(tmp_path / "device", 2, 4, 5, **options)
    monkeypatch.setattr(Runtime, "reads_are_free", False)
    device.run()
    assert differences(everything(host), everything(device)) == []
    assert host.state.skipped == device.state.skipped == {"generator": 3}
    told = [[record for record in records(tmp_path / name) if "skipped" in record] for name in ("host", "device")]
    assert told[0] == told[1]


def test_unknown_part_to_compile_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"engine\.compile: the model has no part 'encodr'; did you mean 'encoder'"):
        tiny_trainer(tmp_path / "run", compile=["encodr"])


def test_run_that_died_before_its_first_checkpoint_starts_again(tmp_path: Path) -> None:
    straight = tiny_trainer(tmp_path / "straight", max_steps=3)
    straight.run()
    dying = poisoned(tmp_path / "run", 1, max_steps=3, skip_limit=1)
    with pytest.raises(UserError, match="no good checkpoint yet"):
        dying.run()
    again = tiny_trainer(tmp_path / "run", max_steps=3)
    assert again.run(resume=True).finished
    assert differences(everything(straight), everything(again)) == []
    assert [record["step"] for record in records(tmp_path / "run")] == [1, 2, 3]
