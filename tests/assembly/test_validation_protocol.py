"""A run may be validated under a protocol: its numbers are those that `smalti evaluate` gives of its model."""

from pathlib import Path

import pytest
import torch

import smalti
from smalti.assembly.recipe import load_recipe
from smalti.data.image_folder import ImageFolder
from smalti.evaluation.opening import open_adapter
from smalti.evaluation.passing import Question, measure
from smalti.evaluation.protocol import protocol_named
from smalti.registry import UserError
from tests.cli.conftest import TINY
from tests.evaluation.tokenizers import photos


def options(folder: Path, protocol: str) -> list[str]:
    data = f"{{source: {{type: image_folder, path: {folder}}}, batch_size: 2}}"
    return [f"validation={{data: {data}, every: 2, metrics: [psnr, ssim, codebook_usage], protocol: {protocol}}}"]


@pytest.mark.parametrize("protocol", ["llamagen@16", "smalti-uint8@16"])
def test_numbers_of_training_are_those_of_evaluate(tmp_path: Path, protocol: str) -> None:
    folder = photos(tmp_path / "held-out", 3, sizes=((40, 50), (24, 20)))
    run = smalti.train(TINY, options(folder, protocol), out=tmp_path / "run", quiet=True)
    asked = Question(
        adapter=open_adapter(str(tmp_path / "run")),
        source=ImageFolder(str(folder)),
        path=str(folder),
        protocol=protocol_named(protocol),
        device=torch.device("cpu"),
        metrics=["psnr", "ssim", "codebook_usage"],
    )
    numbers = measure(asked).numbers
    assert ("ssim_inflated" in numbers) == (protocol == "llamagen@16")
    assert {name: run.evaluation[name] for name in numbers} == pytest.approx(numbers, abs=1e-5)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("validation.protocol=amd@16", "did you mean 'adm'"),
        ("validation.data.transform={size: 16, crop: center}", "leave it out"),
        ("validation.metrics={psnr: {type: psnr, mean: pooled}}", "protocol llamagen says 'image_mean'"),
    ],
)
def test_what_contradicts_a_protocol_is_found_when_the_recipe_is_read(tmp_path: Path, change: str, says: str) -> None:
    folder = photos(tmp_path / "held-out", 2)
    with pytest.raises(UserError, match=says):
        load_recipe(TINY, [*options(folder, "llamagen@16"), change])
