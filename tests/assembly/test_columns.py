"""Columns that the objective asks for: held-out images must have them too, or a run ends at its first validation."""

from pathlib import Path

import pytest
import yaml
from PIL import Image

import smalti
from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.config import ConfigError
from smalti.registry import UserError
from tests.assembly.mistakes import KL

NEEDS = ["objective.generator.pixel={type: l1, inputs: {weight: batch.mask}}"]
HELD_OUT = "validation={data: {source: {type: image_folder, path: images%s}}}"


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for folder in ("images", "masks", "edges"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / folder / "a.png")
    (tmp_path / "weights.csv").write_text("file,weight\na.png,2\n")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(KL), "engine": {"max_steps": 1, "sample_every": 0}}))
    return path


def test_a_column_that_validation_lacks_is_found_in_the_recipe(recipe: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, [*NEEDS, HELD_OUT % ""])
    [problem] = caught.value.problems
    assert problem.place == "validation.data.source"
    assert problem.message == "no column 'mask', which objective.generator.pixel asks for"
    load_recipe(recipe, [*NEEDS, HELD_OUT % ", columns: {mask: masks}"])


def test_a_column_missing_everywhere_is_said_once(recipe: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, ["data.source.columns={condition: edges}", *NEEDS, HELD_OUT % ""])
    assert [problem.place for problem in caught.value.problems] == ["objective.generator.pixel.inputs.weight"]


@pytest.mark.parametrize("section", ["data.source", "validation.data.source"])
def test_a_column_that_a_table_lacks_is_found_before_the_first_step(recipe: Path, section: str) -> None:
    overrides = [
        "objective.generator.pixel={type: l1, inputs: {weight: batch.weights}}",
        HELD_OUT % ", table: weights.csv",
        "data.source.table=weights.csv",
    ]
    assert smalti.train(recipe, overrides, quiet=True).finished
    Path("labels.csv").write_text("file,label\na.png,2\n")
    with pytest.raises(UserError, match=rf"^{section}: no column 'weights', which objective.generator.pixel asks for"):
        assemble(load_recipe(recipe, [*overrides, f"{section}.table=labels.csv"]), "out", quiet=True)


def test_a_stream_is_no_held_out_data(recipe: Path) -> None:
    stream = "{type: huggingface, path: there, streaming: true}"
    load_recipe(recipe, [f"data.source={stream}"])
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, [f"validation={{data: {{source: {stream}}}}}"])
    [problem] = caught.value.problems
    assert problem.place == "validation.data.source"
    assert problem.message == "a stream is for training only: streaming: false"


def test_a_resumed_run_on_a_stream_is_the_uninterrupted_one(recipe: Path, tmp_path: Path) -> None:
    import datasets

    for number in range(7):
        Image.new("RGB", (32, 32), (36 * number, 0, 255)).save(tmp_path / f"{number}.png")
    pictures = [{"path": str(tmp_path / f"{number}.png"), "bytes": None} for number in range(7)]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": pictures}, features=features).save_to_disk(tmp_path / "set")
    source = f"{{type: huggingface, path: {tmp_path / 'set'}, streaming: true, rows: 7, shuffle_buffer: 3}}"
    steps = [f"data.source={source}", "engine.max_steps=4", "engine.checkpoint_every=2"]
    whole = smalti.train(recipe, steps, out=tmp_path / "whole", quiet=True)
    parted = tmp_path / "parted"
    smalti.train(recipe, [*steps, "engine.max_steps=2"], out=parted, quiet=True)
    again = smalti.train(recipe, steps, out=parted, resume=True, quiet=True)
    weights = [(result.folder / "model" / "model.safetensors").read_bytes() for result in (whole, again)]
    assert weights[0] == weights[1]
