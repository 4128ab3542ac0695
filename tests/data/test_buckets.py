"""Buckets of aspect ratios: batches of one shape, every image once an epoch, little cut away, resumed anywhere."""

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import smalti
from smalti.assembly.recipe import load_recipe
from smalti.config import ConfigError
from smalti.data._buckets import BucketStream, bucket_shapes, nearest_shape
from smalti.data.digits import Digits
from smalti.data.image_folder import ImageFolder
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.transforms import Buckets, Transform
from smalti.registry import UserError
from tests.assembly.mistakes import KL

CROP = Transform(size=32, crop="random", flip=True, buckets=Buckets(step=8, ratio=3.0))
SIZES = [(20, 60), (60, 20), (40, 40), (40, 50), (50, 40), (64, 33), (33, 64)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> ImageFolder:
    folder = tmp_path_factory.mktemp("mixed")
    for number in range(23):
        height, width = SIZES[number % len(SIZES)]
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02d}.png")
    return ImageFolder(str(folder))


@pytest.mark.parametrize(("size", "step", "ratio"), [(256, 32, 2.0), (512, 64, 4.0), (64, 8, 1.0), (96, 16, 3.0)])
def test_shapes_have_about_the_area_and_keep_the_bounds(size: int, step: int, ratio: float) -> None:
    shapes = bucket_shapes(size, step, ratio)
    assert (size, size) in shapes
    assert len(set(shapes)) == len(shapes)
    assert {(width, height) for height, width in shapes} == set(shapes), "every shape lies both ways"
    for height, width in shapes:
        assert height % step == width % step == 0
        assert max(height, width) <= ratio * min(height, width)
        assert abs(height * width - size * size) <= step * min(height, width) / 2, "the nearest multiple of the step"
    ratios = [height / width for height, width in shapes]
    assert ratios == sorted(ratios, reverse=True)


def test_nearest_is_by_factor_and_symmetric() -> None:
    shapes = bucket_shapes(256, 64, 2.0)
    for size in [(100, 300), (300, 200), (7, 7), (1000, 1010)]:
        turned = shapes[nearest_shape(shapes, size[::-1])]
        assert shapes[nearest_shape(shapes, size)] == turned[::-1]
    assert shapes[nearest_shape(shapes, (9999, 1))] == shapes[0]


def test_batches_have_one_shape_and_epochs_show_each_image_once(mixed: ImageFolder) -> None:
    loader = BatchLoader(mixed, CROP, batch_size=4, seed=0)
    stream = loader.batches()
    shapes = set()
    for _ in range(6):
        epoch = [next(stream) for _ in range(len(mixed) // 4)]
        seen = [index for batch in epoch for index in batch["index"].tolist()]
        assert len(set(seen)) == len(seen) == 20, "but for fewer than a batch"
        shapes |= {tuple(batch["image"].shape[2:]) for batch in epoch}
    assert shapes <= set(CROP.shapes)
    assert len(shapes) > 2


def test_no_image_is_always_left_out() -> None:
    stream = BucketStream(SIZES * 3, CROP.shapes, group=4, seed=1)
    seen = Counter(stream[position][1] for position in range(200 * stream.size))
    assert set(seen) == set(range(21))
    assert min(seen.values()) > 0.85 * max(seen.values())


def test_images_that_fill_a_batch_get_their_own_shape() -> None:
    stream = BucketStream([(20, 60)] * 8 + [(60, 20)] * 8, CROP.shapes, group=4, seed=1)
    for position in range(3 * 16):
        index = stream[position][1]
        assert stream.shape_of(position) == CROP.shapes[nearest_shape(CROP.shapes, (20, 60) if index < 8 else (60, 20))]


@pytest.mark.parametrize("start", [1, 4, 9])
def test_the_stream_is_entered_anywhere(mixed: ImageFolder, start: int) -> None:
    whole = [
        batch for _, batch in zip(range(11), BatchLoader(mixed, CROP, batch_size=4, seed=3).batches(), strict=False)
    ]
    again = BatchLoader(pickle.loads(pickle.dumps(mixed)), CROP, batch_size=4, seed=3).batches(start)
    for batch in whole[start:]:
        found = next(again)
        assert found["image"].equal(batch["image"])
        assert found["index"].equal(batch["index"])


def test_ranks_and_workers_see_together_what_one_sees(mixed: ImageFolder) -> None:
    whole = BatchLoader(mixed, CROP, batch_size=4, seed=3).batches()
    ranks = [
        BatchLoader(mixed, CROP, batch_size=2, seed=3, rank=r, world_size=2, workers=r).batches() for r in range(2)
    ]
    for _ in range(7):
        batch, parts = next(whole), [next(rank) for rank in ranks]
        assert batch["index"].tolist() == [index for part in parts for index in part["index"].tolist()]
        assert batch["image"][2:].equal(parts[1]["image"])
    ranks[1].close()  # type: ignore[attr-defined]


def test_held_out_images_are_cropped_to_the_nearest_shape(mixed: ImageFolder) -> None:
    crop = Transform(size=32, crop="center", buckets=Buckets(step=8, ratio=3.0))
    for batch in evaluation_batches(mixed, crop, 2):
        for index in batch["index"].tolist():
            expected = crop.shapes[nearest_shape(crop.shapes, SIZES[index % len(SIZES)])]
            assert tuple(batch["image"].shape[2:]) == expected


def test_a_shape_given_is_the_crop_of_that_size() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    plain = Transform(size=(24, 40), crop="center")
    assert CROP.to((24, 40)) == Transform(size=(24, 40), crop="random", flip=True)
    shaped = Transform(size=32, crop="center", buckets=Buckets(step=8)).to((24, 40))
    import random

    assert shaped({"image": image}, random.Random(0))["image"].equal(plain({"image": image}, random.Random(0))["image"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Transform(size=(32, 32), crop="random", buckets=Buckets(step=8)), "expected one number with buckets"),
        (lambda: Transform(size=36, crop="random", buckets=Buckets(step=8)), "divisible by their step 8"),
        (lambda: BatchLoader(Digits(), CROP, batch_size=4, seed=0), "Digits does not say how large"),
        (lambda: BucketStream(SIZES, CROP.shapes, group=8, seed=0), "7 images do not fill a batch of 8"),
    ],
)
def test_what_cannot_be_is_named(make: Any, message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        make()


@pytest.fixture
def recipe(tmp_path: Path, mixed: ImageFolder) -> Path:
    made = yaml.safe_load(KL)
    made["data"] |= {"source": {"type": "image_folder", "path": str(mixed.folder)}, "batch_size": 4}
    made["data"]["transform"] = {"size": 32, "crop": "random", "buckets": {"step": 16}}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**made, "engine": {"max_steps": 3, "sample_every": 0}}))
    return path


def test_a_run_trains_on_buckets(recipe: Path, tmp_path: Path) -> None:
    assert smalti.train(recipe, out=tmp_path / "run", quiet=True).finished


def test_a_step_that_the_model_cannot_take_is_found_in_the_recipe(recipe: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe(recipe, ["data.transform.buckets.step=1"])
    (problem,) = caught.value.problems
    assert problem.place == "data.transform.buckets.step"
    assert "multiple of the model's factor" in problem.message
