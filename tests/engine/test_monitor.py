"""What "best" means, and that the model a run leaves is the best one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from smalti.assembly.recipe import validate
from smalti.config import ConfigError, override
from smalti.config.document import parse
from smalti.engine.monitor import mode_of
from smalti.engine.settings import EMASettings, ValidationSettings
from smalti.engine.trainer import Trainer
from smalti.metrics import Metric
from smalti.models._pretrained import read_config, read_weights
from smalti.registry import UserError, classes
from tests.assembly.mistakes import VQ
from tests.engine.toys import tiny_trainer

METRICS = {name: found[0] for name, found in classes(Metric).items()}


class Foreign:
    """A metric of somebody else, which says nothing of itself."""


@pytest.mark.parametrize(
    ("monitor", "mode"),
    [
        ("psnr", "max"),
        ("ssim", "max"),
        ("codebook_usage", "max"),
        ("perplexity_visual", "max"),
        ("lpips", "min"),
        ("sliced_wasserstein", "min"),
        ("wasserstein", "min"),
        ("generator/total", "min"),
        ("generator/pixel/raw", "min"),
        ("discriminator/adversarial/weighted", "min"),
    ],
)
def test_what_is_monitored_says_which_way_is_better(monitor: str, mode: Any) -> None:
    assert mode_of(monitor, None, METRICS) == mode
    assert mode_of(monitor, mode, METRICS) == mode
    with pytest.raises(UserError, match=f"expected '{mode}'"):
        mode_of(monitor, "min" if mode == "max" else "max", METRICS)


@pytest.mark.parametrize("monitor", ["sample_diversity", "bits_per_image", "codebook_mutual_information"])
def test_what_is_neither_better_nor_worse_cannot_be_monitored(monitor: str) -> None:
    with pytest.raises(UserError, match="cannot be monitored"):
        mode_of(monitor, "max", METRICS)


@pytest.mark.parametrize("monitor", ["mine", "mine_part", "generator/critic/slope"])
def test_what_is_not_known_must_be_said(monitor: str) -> None:
    with pytest.raises(UserError, match="say mode: max or mode: min"):
        mode_of(monitor, None, {"mine": Foreign})
    assert mode_of(monitor, "max", {"mine": Foreign}) == "max"


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("validation.mode=min", "validation.mode"),
        ("validation.metrics=[bits_per_image]", "validation.monitor"),
        ("validation.monitor=bits_per_image", "validation.monitor"),
        ("validation.monitor=null", "engine.save"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(change: str, place: str) -> None:
    document = parse(VQ)
    override(document, "engine.save=best")
    override(document, change)
    if change.endswith("monitor=bits_per_image"):
        override(document, "validation.metrics=[psnr, bits_per_image]")
    with pytest.raises(ConfigError) as error:
        validate(document)
    assert [problem.place for problem in error.value.problems] == [place]


def scored(out: Path, scores: list[float], **options: Any) -> Trainer:
    settings = ValidationSettings(every=1, monitor="score", mode=options.pop("mode", "min"))
    trainer = tiny_trainer(out, max_steps=len(scores), keep=1, validation=settings, **options)
    assert trainer.examiner.validation is not None
    values = iter(scores)
    object.__setattr__(trainer.examiner.validation, "measure", lambda model: {"score": next(values)})
    return trainer


def weights(run: Path) -> dict[str, torch.Tensor]:
    model = run / "model"
    return read_weights(model / "model.safetensors", read_config(model / "config.json"))


@pytest.mark.parametrize("ema", [None, EMASettings(decay=0.5)])
def test_the_model_is_of_the_best_step_and_so_are_its_numbers(tmp_path: Path, ema: EMASettings | None) -> None:
    short = scored(tmp_path / "short", [0.5, 0.1], ema=ema)
    short.run()
    trainer = scored(tmp_path / "run", [0.5, 0.1, 0.9, 0.3], ema=ema)
    result = trainer.run()
    assert result.evaluation["score"] == 0.1
    assert (result.evaluation["model_step"], result.evaluation["step"]) == (2, 4)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["model_step"] == 2
    best, same = weights(tmp_path / "run"), weights(tmp_path / "short")
    assert all(torch.equal(best[name], same[name]) for name in same)
    last = scored(tmp_path / "last", [0.5, 0.1, 0.9, 0.3], ema=ema, save="last")
    evaluation = last.run().evaluation
    assert (evaluation["score"], evaluation["model_step"]) == (0.3, 4)
    kept = dict(trainer.model.state_dict())
    assert all(torch.equal(kept[name], value) for name, value in last.model.state_dict().items())


def test_a_best_checkpoint_that_is_damaged_gives_way_to_the_last(tmp_path: Path) -> None:
    trainer = scored(tmp_path / "run", [0.1, 0.9, 0.3])
    finish = trainer._finish

    def damaged() -> dict[str, Any]:
        (trainer.checkpoints.folder(1) / "state.pt").write_bytes(b"")
        return finish()

    trainer._finish = damaged  # type: ignore[method-assign]
    evaluation = trainer.run().evaluation
    assert (evaluation["score"], evaluation["model_step"]) == (0.3, 3)
    told = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("state.pt" in record.get("warning", "") for record in told)
