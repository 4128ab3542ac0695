"""A term that starts when the reconstruction flattens: found by the run, kept by checkpoints, agreed by all phases."""

import json
from pathlib import Path
from typing import Any

import pytest

import smalti
from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.objectives.weight import Clock, Plateau, Schedule
from smalti.registry import UserError

RECIPE = Path(__file__).parents[1] / "zoo" / "bases" / "vqgan.yaml"
TIMES = {"seconds", "images_per_second", "eta_seconds", "data_wait", "memory"}


def plateau(**options: Any) -> list[str]:
    words = ", ".join(f"{name}: {value}" for name, value in {"when": "plateau", **options}.items())
    return [f"objective.{player}.adversarial.start={{{words}}}" for player in ("generator", "discriminator")]


def short(steps: int, *overrides: str) -> list[str]:
    engine = [f"engine.max_steps={steps}", "engine.log_every=1", "engine.checkpoint_every=0"]
    return [*engine, "data.transform.size=8", "data.batch_size=4", *overrides]


def log_of(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMES} for line in lines]


def statuses(folder: Path, player: str) -> dict[int, str]:
    name = f"train/{player}/adversarial/status"
    return {line["step"]: line[name] for line in log_of(folder) if name in line}


def test_weight_waits_for_its_plateau_and_ramps_from_there() -> None:
    schedule = Schedule(weight=2.0, start=Plateau(when="plateau"), ramp=4)
    key = Plateau(when="plateau").key
    assert schedule.at(Clock(step=10_000)) == 0.0
    found = {key: 10}
    assert [schedule.at(Clock(step=step, started=found)) for step in (9, 10, 11, 14, 20)] == [0.0, 0.0, 0.5, 2.0, 2.0]
    assert schedule.is_waiting(Clock(step=11, started={"another": 1}))


@pytest.mark.parametrize(
    ("mean", "before", "step", "reached"),
    [
        (0.97, 1.0, 400, False),  # three per cent better
        (0.985, 1.0, 400, True),
        (1.5, 1.0, 400, True),
        (0.985, 1.0, 200, False),  # before `after`
        (0.985, None, 400, False),
        (-1.01, -1.0, 400, True),  # a likelihood may be negative
        (-1.05, -1.0, 400, False),
        (0.5, 1.0, 1000, True),  # `latest`
    ],
)
def test_plateau_is_an_improvement_below_the_share(mean: float, before: float | None, step: int, reached: bool) -> None:
    start = Plateau(when="plateau", after=300, latest=1000)
    assert start.is_reached(step, mean, before) is reached


def test_both_players_start_together_at_the_end_of_a_window(tmp_path: Path) -> None:
    smalti.train(RECIPE, short(14, *plateau(window=4, improvement=0.9)), out=tmp_path / "run", quiet=True)
    for player in ("generator", "discriminator"):
        acting = [step for step, status in statuses(tmp_path / "run", player).items() if status == "active"]
        assert acting == list(range(9, 15))  # the second window of 4 is not 90 % better than the first
    assert [line["note"] for line in log_of(tmp_path / "run") if "note" in line] == [
        "a plateau: generator.adversarial, discriminator.adversarial start at step 8"
    ]


@pytest.mark.parametrize("stop", [3, 6, 10])
def test_resumed_run_starts_where_the_uninterrupted_one_does(tmp_path: Path, stop: int) -> None:
    given = plateau(window=4, improvement=0.9)
    smalti.train(RECIPE, short(12, *given), out=tmp_path / "straight", quiet=True)
    smalti.train(RECIPE, short(stop, *given), out=tmp_path / "resumed", quiet=True)
    smalti.train(RECIPE, short(12, *given), out=tmp_path / "resumed", resume=True, quiet=True)
    assert log_of(tmp_path / "resumed") == log_of(tmp_path / "straight")


def test_every_rank_decides_from_the_mean_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = assemble(load_recipe(RECIPE, short(4, *plateau(window=2))), tmp_path / "run", quiet=True)
    plateaus = trainer.chronicle.plateaus
    (key,) = plateaus.waiting
    others = [[3.0, 2.0], [4.1, 2.0]]  # another rank got worse
    monkeypatch.setattr(plateaus.runtime, "gather", lambda value: [value, others.pop(0)])
    plateaus.restore({key: [5.0, 2.0]})
    trainer.state.step = 2
    assert plateaus.decide() == []
    assert trainer.state.plateaus == {key: 2.0}  # (5 + 3) / (2 + 2)
    plateaus.restore({key: [3.9, 2.0]})
    trainer.state.step = 4
    assert len(plateaus.decide()) == 1  # (3.9 + 4.1) / 4 is 2 again, though this rank got better
    assert trainer.state.started == {key: 4}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (plateau(windw=4), r"start\.windw.*did you mean 'window'"),
        (plateau(window=0), r"adversarial\.start"),
        (["objective.generator.adversarial.start={when: platau}"], r"start\.when.*did you mean 'plateau'"),
        (["objective.generator.adversarial.start=-1"], r"adversarial\.start"),
        (["objective.generator.l1.start={when: plateau}"], "it would never come"),
    ],
)
def test_what_cannot_be_is_said_when_the_recipe_is_read(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(RECIPE, overrides)
