"""A resumed run with another length: its learning rates move only if the user says so."""

import json
from pathlib import Path

import pytest

import smalti
from smalti.engine.optimizers import moved_rates
from smalti.registry import UserError

SHORT = ["engine.max_steps=4", "engine.checkpoint_every=2", "engine.log_every=1", "validation=null"]


def rates(run: Path) -> list[float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["train/generator/learning_rate"] for line in lines if "train/generator/learning_rate" in line]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_schedule_is_not_stretched_silently(tmp_path: Path, schedule: str) -> None:
    options = [*SHORT, f"optim.generator.lr_schedule={schedule}"]
    smalti.train("tiny-wgan-digits", options, out=tmp_path / "run", quiet=True)
    recipe = (tmp_path / "run" / "recipe.yaml").read_bytes()
    longer = [*options, "engine.max_steps=6"]
    with pytest.raises(
        UserError, match=rf"generator \({schedule}\): at step 4 the rate was .* and would be .*"
    ) as error:
        smalti.train("tiny-wgan-digits", longer, out=tmp_path / "run", resume=True, quiet=True)
    assert "--reschedule" in str(error.value)
    assert (tmp_path / "run" / "recipe.yaml").read_bytes() == recipe
    result = smalti.train("tiny-wgan-digits", longer, out=tmp_path / "run", resume=True, reschedule=True, quiet=True)
    assert result.step == 6
    assert len(rates(tmp_path / "run")) == 6


@pytest.mark.parametrize(
    "changes",
    [
        ["optim.generator.lr_schedule=constant", "optim.discriminator.lr_schedule=constant"],
        ["optim.generator.lr_steps=50", "optim.discriminator.lr_steps=50"],
    ],
)
def test_rates_that_stay_need_no_word(tmp_path: Path, changes: list[str]) -> None:
    smalti.train("tiny-wgan-digits", [*SHORT, *changes], out=tmp_path / "run", quiet=True)
    again = [*SHORT, *changes, "engine.max_steps=5"]
    assert smalti.train("tiny-wgan-digits", again, out=tmp_path / "run", resume=True, quiet=True).step == 5


def test_the_rates_named_are_those_of_the_step() -> None:
    def recipe(steps: int) -> dict[str, object]:
        optim = {"generator": {"lr": 1.0, "lr_schedule": "linear", "betas": [0.5, 0.9]}, "discriminator": None}
        return {"engine": {"max_steps": steps}, "optim": optim}

    line = "optim.generator (linear): at step 5 the rate was 0.5 and would be 0.75"
    assert moved_rates(recipe(10), recipe(20), 5) == [line]
    assert moved_rates(recipe(10), recipe(10), 5) == []
