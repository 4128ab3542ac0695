"""Labels that are no classes are found before the first step, wherever they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from smalti.assembly.assemble import assemble
from smalti.assembly.recipe import load_recipe
from smalti.data import ImageSource
from smalti.data._labels import with_classes
from smalti.data.digits import Digits
from smalti.data.image_folder import ImageFolder
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.transforms import Transform
from smalti.discriminators.mlp import MLP
from smalti.models.mlp_generator import MLPGenerator
from smalti.registry import UserError

RECIPE = """
model: {type: mlp_generator, image_size: 8, image_channels: 1, latent_size: 4, widths: [8], num_classes: CLASSES}
discriminator: {type: mlp, image_size: 8, in_channels: 1, widths: [8], num_classes: CLASSES, embedding_size: 2}
objective:
  generator: {adversarial: {type: hinge}}
  discriminator: {adversarial: {type: hinge}}
data: {source: SOURCE, transform: {size: 8, crop: resize}, batch_size: 3}
validation: {data: {source: HELD_OUT, batch_size: 3}, every: 1}
optim: {generator: {}, discriminator: {}}
engine: {max_steps: 1}
cycle: [discriminator, generator]
"""
GOOD = "{type: digits}"


class Own(ImageSource):
    """A source that knows its labels only when an item is read."""

    columns = ("image", "label")
    image_channels = 1
    label: Any = 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = {"image": Image.new("L", (8, 8)), "label": self.label if index == 1 else 0}
        return {name: value for name, value in item.items() if value is not None}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name in "abc":
        Image.new("L", (8, 8)).save(tmp_path / "images" / f"{name}.png")
    return tmp_path / "images"


def table(folder: Path, *labels: object, name: str = "table") -> str:
    path = folder.parent / f"{name}.csv"
    rows = [f"{letter}.png,{label}" for letter, label in zip("abc", labels, strict=True)]
    path.write_text("\n".join(["file,label", *rows]) + "\n")
    return str(path)


def write(folder: Path, source: str, held_out: str = GOOD, classes: int = 10) -> Path:
    path = folder.parent / "recipe.yaml"
    text = RECIPE.replace("SOURCE", source).replace("HELD_OUT", held_out).replace("CLASSES", str(classes))
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((1, 2, 3), r"line 4 \(c.png\): label 3: expected a whole number from 0 to 2.*seem to count from 1"),
        ((0, -1, 2), r"line 3 \(b.png\): label -1: expected a whole number from 0 to 2"),
        ((3, 0, 7), r"line 2 \(a.png\): label 3: .*; so are 1 more of 3$"),
        ((0, 2**62, 1), r"line 3 \(b.png\): label 4611686018427387904: "),
        ((0, 2**63, 1), r"line 3: label of b.png is '9223372036854775808', expected a whole number of at most 64 bits"),
        ((0, "", 1), r"line 3: label of b.png is '', expected a whole number"),
        ((0, "1.0", 1), r"line 3: label of b.png is '1.0', expected a whole number"),
    ],
)
@pytest.mark.parametrize("section", ["data", "validation.data"])
def test_a_table_with_other_labels_is_refused_when_the_run_is_put_together(
    folder: Path, labels: tuple[object, ...], said: str, section: str
) -> None:
    def listed(name: str, *given: object) -> str:
        return f"{{type: image_folder, path: {folder}, image_channels: 1, table: {table(folder, *given, name=name)}}}"

    wrong, right = listed("wrong", *labels), listed("right", 0, 1, 2)
    trained, held_out = (wrong, right) if section == "data" else (right, wrong)
    recipe = load_recipe(write(folder, trained, held_out, classes=3))
    with pytest.raises(UserError, match=rf"(?s){section}.source.*wrong.csv.*{said}"):
        assemble(recipe, folder.parent / "run", quiet=True)


def test_digits_with_fewer_classes_are_refused_before_the_first_step(folder: Path) -> None:
    with pytest.raises(UserError, match=r"data.source: digit-0\d+: label \d: expected a whole number from 0 to 4"):
        assemble(load_recipe(write(folder, GOOD, classes=5)), folder.parent / "run", quiet=True)
    assert with_classes(Digits(), 10, "data.source").labels[:3] == [0, 1, 2]


@pytest.mark.parametrize("label", [10, -1, 2**70, 1.0, "1", None, True, np.float32(1), torch.tensor([1, 2])])
@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_source_that_reads_its_labels_late_is_checked_on_the_cpu(label: Any, workers: int) -> None:
    source = Own()
    source.label = label
    checked = with_classes(source, 10, "data.source")
    loader = BatchLoader(checked, Transform(), batch_size=3, seed=0, workers=workers)
    said = "data.source: item 1: " + ("no label" if label is None else "label ")
    with pytest.raises(UserError, match=said):
        next(loader.batches())
    with pytest.raises(UserError, match=said):
        list(evaluation_batches(checked, Transform(), 3))
    assert with_classes(source, 0, "data.source") is source


@pytest.mark.parametrize("label", [9, np.int64(9), np.uint8(9), torch.tensor(9)])
def test_labels_of_any_whole_type_become_one_column(label: Any) -> None:
    source = Own()
    source.label = label
    batch = next(evaluation_batches(with_classes(source, 10, "data.source"), Transform(), 3))
    assert batch["label"].dtype == torch.int64
    assert batch["label"].tolist() == [0, 9, 0]


@pytest.mark.parametrize("labels", [[0, 3], [-1, 0], [0.0, 1.0]])
def test_networks_refuse_labels_that_are_no_classes(labels: list[Any]) -> None:
    given = torch.tensor(labels)
    generator = MLPGenerator(image_size=8, image_channels=1, latent_size=4, widths=[8], num_classes=3)
    critic = MLP(image_size=8, in_channels=1, widths=[8], num_classes=3)
    with pytest.raises(ValueError, match="expected whole numbers"):
        generator.sample(torch.zeros(2, 4), given)
    with pytest.raises(ValueError, match="expected whole numbers"):
        critic(torch.zeros(2, 1, 8, 8), given)


def test_labels_that_nobody_asks_for_may_be_any_numbers(folder: Path) -> None:
    source = ImageFolder(str(folder), table=table(folder, -5, 0, 99))
    assert with_classes(source, 0, "data.source")[2]["label"] == 99
