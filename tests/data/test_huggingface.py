"""Data sets of the Hugging Face library: rows by number are those of a folder, a stream is resumed exactly."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from smalti.data._labels import with_classes
from smalti.data.huggingface import HuggingFace
from smalti.data.image_folder import ImageFolder
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.transforms import Transform
from smalti.registry import UserError

CROP = Transform(size=8, crop="adm_random", flip=True)
COUNT = 11


def picture(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8))


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    picture(seed).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def rows() -> datasets.Dataset:
    features = datasets.Features(
        {
            "pixels": datasets.Image(),
            "fine": datasets.ClassLabel(names=["a", "b", "c"]),
            "caption": datasets.Value("string"),
        }
    )
    columns = {
        "pixels": [{"bytes": encoded(number), "path": None} for number in range(COUNT)],
        "fine": [number % 3 for number in range(COUNT)],
        "caption": [f"number {number}" for number in range(COUNT)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture(scope="module")
def saved(rows: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    datasets.DatasetDict({"train": rows, "held_out": rows.select([4, 2])}).save_to_disk(folder)
    return folder


@pytest.fixture(scope="module")
def parquet(rows: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parquet")
    for part in range(2):
        rows.shard(2, part).to_parquet(folder / f"train-{part}.parquet")
    return folder


THERE: Any = {"image": "pixels", "columns": {"label": "fine", "text": "caption"}}


def test_rows_are_read_by_number(saved: Path) -> None:
    source = HuggingFace(str(saved), **THERE)
    assert len(source) == COUNT
    assert source.labels == [number % 3 for number in range(COUNT)]
    for index in (7, 0, 10):
        item = source[index]
        assert item["image"].tobytes() == picture(index).tobytes()
        assert (item["label"], item["text"]) == (index % 3, f"number {index}")


def test_a_split_that_was_selected_keeps_its_order(saved: Path) -> None:
    source = HuggingFace(str(saved), split="held_out", image="pixels")
    assert [source[index]["image"].tobytes() for index in range(2)] == [picture(n).tobytes() for n in (4, 2)]
    assert len(list(source.fingerprint()["rows"])) == 2


def test_parquet_and_saved_give_the_same_batches(saved: Path, parquet: Path) -> None:
    batches = [
        next(BatchLoader(HuggingFace(str(p), **THERE), CROP, batch_size=5, seed=1).batches(1)) for p in (saved, parquet)
    ]
    assert batches[0]["image"].equal(batches[1]["image"])
    assert batches[0]["text"] == batches[1]["text"]


def test_a_folder_of_images_is_what_image_folder_reads(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(encoded(number))
    ours, theirs = ImageFolder(str(tmp_path)), HuggingFace(str(tmp_path))
    assert ours.names == theirs.names
    assert [ours[n]["image"].tobytes() for n in range(3)] == [theirs[n]["image"].tobytes() for n in range(3)]


def stream(path: Path, start: int, batch: int = 4, **options: Any) -> Iterator[Any]:
    world = {name: options.pop(name) for name in ("rank", "world_size", "workers") if name in options}
    source = HuggingFace(str(path), **THERE, **{"streaming": True, "rows": COUNT, "shuffle_buffer": 4} | options)
    return BatchLoader(source, CROP, batch_size=batch, seed=5, **world).batches(start)


def first(batches: Iterator[Any], count: int) -> list[dict[str, Any]]:
    return [next(batches) for _ in range(count)]


def assert_equal(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert len(one) == len(other)
    for a, b in zip(one, other, strict=True):
        assert a["image"].equal(b["image"])
        assert a["position"].equal(b["position"])
        assert a["text"] == b["text"]


def test_a_stream_shows_each_row_once_an_epoch_and_in_another_order(parquet: Path) -> None:
    texts = [text for batch in first(stream(parquet, 0, batch=COUNT), 3) for text in batch["text"]]
    epochs = [texts[start : start + COUNT] for start in range(0, 3 * COUNT, COUNT)]
    assert all(sorted(epoch) == sorted(epochs[0]) and len(set(epoch)) == COUNT for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("start", [1, 3, 6])
def test_a_stream_is_entered_anywhere(saved: Path, start: int) -> None:
    whole = first(stream(saved, 0), 9)
    assert_equal(first(stream(saved, start), 9 - start), whole[start:])


def test_workers_and_ranks_share_a_stream(parquet: Path) -> None:
    whole = first(stream(parquet, 0), 8)
    workers = stream(parquet, 0, workers=2)
    assert_equal(first(workers, 8), whole)
    workers.close()
    ranks = [first(stream(parquet, 0, batch=2, rank=rank, world_size=2), 8) for rank in range(2)]
    for number, batch in enumerate(whole):
        assert batch["text"] == ranks[0][number]["text"] + ranks[1][number]["text"]


def test_a_stream_without_a_buffer_keeps_the_order(parquet: Path) -> None:
    (batch,) = first(stream(parquet, 0, batch=COUNT, shuffle_buffer=1), 1)
    assert batch["text"] == [f"number {number}" for number in range(COUNT)]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_row_that_cannot_be_decoded_is_replaced_by_the_next(tmp_path: Path, streaming: bool) -> None:
    features = datasets.Features({"image": datasets.Image(), "n": datasets.Value("int64")})
    pictures = [{"bytes": b"broken" if number == 1 else encoded(number), "path": None} for number in range(3)]
    made = datasets.Dataset.from_dict({"image": pictures, "n": [0, 1, 2]}, features=features)
    made.save_to_disk(tmp_path / "set")
    more: Any = {"streaming": True, "rows": 3, "shuffle_buffer": 1} if streaming else {}
    source = HuggingFace(str(tmp_path / "set"), columns={"n": "n"}, **more)
    loader = BatchLoader(source, Transform(size=8, crop="center"), batch_size=3, seed=0)
    seen = [number for batch in first(loader.batches(), 2) for number in batch["n"].tolist()]
    assert sorted(seen[:3]) == sorted(seen[3:]) == [0, 2, 2]
    if not streaming:
        return
    assert seen[:3] == [0, 2, 2]


def test_labels_of_a_stream_are_checked_row_by_row(parquet: Path) -> None:
    source = HuggingFace(str(parquet), **THERE, streaming=True, rows=COUNT)
    fine = BatchLoader(with_classes(source, 3, "data.source"), CROP, batch_size=4, seed=0)
    assert set(next(fine.batches())["label"].tolist()) <= {0, 1, 2}
    wrong = BatchLoader(with_classes(source, 2, "data.source"), CROP, batch_size=COUNT, seed=0)
    with pytest.raises(
        UserError, match=r"data\.source: row \d+ of epoch 0: label 2: expected a whole number from 0 to 1"
    ):
        next(wrong.batches())


def test_a_stream_that_is_shorter_than_it_should_be_ends_the_run(parquet: Path) -> None:
    with pytest.raises(UserError, match=r"ended after 11 rows, it should have 12: set rows"):
        first(stream(parquet, 0, rows=12), 3)


def test_a_stream_is_for_training(parquet: Path) -> None:
    source = HuggingFace(str(parquet), **THERE, streaming=True, rows=COUNT)
    with pytest.raises(UserError, match="for training only"):
        list(evaluation_batches(source, CROP, 2))
    (entry,) = source.fingerprint()["stream"]
    assert entry[1] == COUNT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "pixel"}, "did you mean 'pixels'"),
        ({"image": "caption"}, "expected a column of images"),
        ({"image": "pixels", "columns": {"label": "coarse"}}, r"columns\.label='coarse'"),
        ({"image": "pixels", "columns": {"index": "fine"}}, "exists already"),
        ({"image": "pixels", "split": "held-out"}, "held_out"),
        ({"image": "pixels", "rows": 3}, "expected none without streaming"),
        ({"image": "pixels", "streaming": True}, "set rows"),
    ],
)
def test_what_is_not_there_is_named(saved: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        HuggingFace(str(saved), **options)


def test_a_data_set_that_cannot_be_had_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nobody/nothing") as caught:
        HuggingFace("nobody/nothing")
    assert "Traceback" not in str(caught.value)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(UserError, match="path="):
        HuggingFace(str(tmp_path))
