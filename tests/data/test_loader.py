import itertools
import multiprocessing
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from smalti.data import ImageSource, UnreadableImageError
from smalti.data.loader import BatchLoader, SampleStream, evaluation_batches, to_device
from smalti.data.transforms import Transform
from smalti.registry import UserError


class Tiles(ImageSource):
    """Images of noise whose first pixel tells the index; ``broken`` ones cannot be read."""

    columns = ("image", "mask", "label", "weights", "text", "embedding")

    def __init__(self, number: int, side: int = 12, broken: tuple[int, ...] = (), growing: int = 0) -> None:
        self.number, self.side, self.broken, self.growing = number, side, broken, growing

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.broken:
            raise UnreadableImageError(f"tile {index}")
        side = self.side + (index // self.growing if self.growing else 0)
        pixels = np.random.default_rng(index).integers(0, 256, (side, side, 3), dtype=np.uint8)
        pixels[0, 0] = index
        image = Image.fromarray(pixels)
        embedding = np.full(2, index, dtype=np.float32)
        return {
            "image": image,
            "mask": image.getchannel("R"),
            "label": index,
            "weights": index / 2,
            "text": f"t{index}",
        } | {"embedding": embedding}


CROP = Transform(size=8, crop="random", flip=True)


def first(loader: BatchLoader, number: int, start: int = 0) -> list[dict[str, Any]]:
    with closing(loader.batches(start)) as batches:  # type: ignore[type-var]
        return list(itertools.islice(batches, number))


def assert_equal(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    assert len(left) == len(right)
    for one, other in zip(left, right, strict=True):
        assert list(one) == list(other)
        for name, value in one.items():
            assert torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name]


@settings(deadline=None, max_examples=30)
@given(size=st.integers(1, 40), seed=st.integers(0, 5), epoch=st.integers(0, 10))
def test_every_epoch_sees_every_item_once(size: int, seed: int, epoch: int) -> None:
    stream = SampleStream(size, seed)
    seen = [stream[position] for position in range(epoch * size, (epoch + 1) * size)]
    assert {found for found, _ in seen} == {epoch}
    assert sorted(index for _, index in seen) == list(range(size))


def test_epochs_and_seeds_are_ordered_differently() -> None:
    orders = {tuple(SampleStream(30, seed).permutation(epoch).tolist()) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9


def test_order_is_uniform() -> None:
    counts = Counter(tuple(SampleStream(3, seed).permutation(0).tolist()) for seed in range(600))
    assert len(counts) == 6
    assert min(counts.values()) > 65


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_see_the_stream_of_one(world_size: int) -> None:
    alone = first(BatchLoader(Tiles(7), CROP, batch_size=2 * world_size, seed=1), 5)
    ranks = [
        first(BatchLoader(Tiles(7), CROP, batch_size=2, seed=1, rank=rank, world_size=world_size), 5)
        for rank in range(world_size)
    ]
    for number, whole in enumerate(alone):
        shares = [batches[number] for batches in ranks]
        for name in ("image", "mask", "index", "position", "label"):
            assert torch.equal(torch.cat([share[name] for share in shares]), whole[name])
        assert list(itertools.chain(*(share["text"] for share in shares))) == whole["text"]


def test_stream_can_be_entered_anywhere() -> None:
    loader = BatchLoader(Tiles(7), CROP, batch_size=3, seed=1)
    assert_equal(first(loader, 4, start=5), first(loader, 9)[5:])


def test_workers_change_nothing() -> None:
    alone = first(BatchLoader(Tiles(7, broken=(2,)), CROP, batch_size=3, seed=1), 9)
    shared = first(BatchLoader(Tiles(7, broken=(2,)), CROP, batch_size=3, seed=1, workers=2), 9)
    assert_equal(alone, shared)
    assert not multiprocessing.active_children()


def test_workers_end_with_their_iterator() -> None:
    batches = BatchLoader(Tiles(7), CROP, batch_size=3, seed=1, workers=2).batches()
    next(batches)
    assert len(multiprocessing.active_children()) == 2
    del batches
    assert not multiprocessing.active_children()


@pytest.mark.skipif(sys.platform != "linux", reason="needs sigwaitinfo")
def test_workers_outlive_a_signal_to_the_group() -> None:
    """SLURM and torchrun signal every process of a job; the main one still needs batches to finish its step."""
    with closing(BatchLoader(Tiles(7), CROP, batch_size=3, seed=1, workers=2).batches()) as batches:  # type: ignore[type-var]
        next(batches)
        for worker in multiprocessing.active_children():
            sender = f"import os, signal; [os.kill({worker.pid}, s) for s in (signal.SIGTERM, signal.SIGINT)]"
            subprocess.run([sys.executable, "-c", sender], check=True)
        assert len(list(itertools.islice(batches, 20))) == 20
        assert len(multiprocessing.active_children()) == 2
    assert not multiprocessing.active_children()


def test_interpreter_ends_quietly_with_workers_running() -> None:
    program = """
import sys
from smalti.data.loader import BatchLoader
from smalti.data.photos import Photos
from smalti.data.transforms import Transform
batches = BatchLoader(Photos(), Transform(size=8, crop="random"), batch_size=2, seed=0, workers=2).batches()
next(batches)
sys.keep = batches
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("workers", [0, 1])
def test_global_generators_are_neither_read_nor_moved(workers: int) -> None:
    states = (torch.get_rng_state(), random.getstate(), str(np.random.get_state()))
    before = first(BatchLoader(Tiles(5), CROP, batch_size=3, seed=1, workers=workers), 3)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (random.getstate(), str(np.random.get_state()))
    torch.manual_seed(99)
    random.seed(99)
    assert_equal(before, first(BatchLoader(Tiles(5), CROP, batch_size=3, seed=1, workers=workers), 3))


def test_augmentation_depends_on_epoch_and_index_alone() -> None:
    """The same sample in other batches, of other ranks, is cropped alike; in another epoch it is not."""

    def by_sample(loader: BatchLoader, number: int) -> dict[tuple[int, int], torch.Tensor]:
        batches = first(loader, number)
        return {
            (int(position) // 5, int(index)): image
            for batch in batches
            for position, index, image in zip(batch["position"], batch["index"], batch["image"], strict=True)
        }

    few = by_sample(BatchLoader(Tiles(5), CROP, batch_size=2, seed=3), 10)
    many = by_sample(BatchLoader(Tiles(5), CROP, batch_size=5, seed=3), 4)
    assert set(few) == set(many)
    assert all(torch.equal(few[key], many[key]) for key in few)
    assert any(not torch.equal(few[0, index], few[1, index]) for index in range(5))


@pytest.mark.parametrize("number", [1, 2])
def test_batch_may_be_larger_than_the_source(number: int) -> None:
    batch = first(BatchLoader(Tiles(number), CROP, batch_size=5, seed=0), 1)[0]
    assert batch["image"].shape == (5, 3, 8, 8)
    assert batch["position"].tolist() == [0, 1, 2, 3, 4]
    assert set(batch["index"].tolist()) == set(range(number))


def test_columns_become_tensors_and_lists() -> None:
    batch = first(BatchLoader(Tiles(4), CROP, batch_size=3, seed=0), 1)[0]
    index = batch["index"]
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["mask"].shape == (3, 1, 8, 8)
    assert torch.equal(batch["label"], index)
    assert torch.equal(batch["weights"], index.float() / 2)
    assert torch.equal(batch["embedding"], index.float()[:, None].expand(3, 2))
    assert batch["text"] == [f"t{number}" for number in index.tolist()]


def test_unreadable_item_is_replaced_by_the_next() -> None:
    batches = first(BatchLoader(Tiles(5, broken=(1, 2, 4)), CROP, batch_size=5, seed=0), 1)
    stream = SampleStream(5, 0)
    expected = [{0: 0, 1: 3, 2: 3, 3: 3, 4: 0}[stream[position][1]] for position in range(5)]
    assert batches[0]["index"].tolist() == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_item_is_named_once(workers: int, caplog: pytest.LogCaptureFixture) -> None:
    first(BatchLoader(Tiles(5, broken=(1, 4)), CROP, batch_size=4, seed=0, workers=workers), 12)
    assert sorted(record.getMessage()[:6] for record in caplog.records) == ["item 1", "item 4"]


@pytest.mark.parametrize("workers", [0, 1])
def test_nothing_readable_is_an_error_of_the_user(workers: int) -> None:
    loader = BatchLoader(Tiles(2, broken=(0, 1)), CROP, batch_size=1, seed=0, workers=workers)
    with pytest.raises(UserError, match=r"^none of 2 images can be read; the last: tile \d$"):
        first(loader, 1)


def test_images_of_different_sizes_need_a_crop() -> None:
    with pytest.raises(
        UserError, match=r"column 'image' differs in size within one batch \(3 x 12 x 12, 3 x 13 x 13\)"
    ):
        first(BatchLoader(Tiles(2, growing=1), Transform(), batch_size=2, seed=0), 1)
    assert len(first(BatchLoader(Tiles(2, growing=1), Transform(), batch_size=1, seed=0), 3)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"workers": -1}, "workers=-1"),
        ({"rank": 1}, "rank=1: expected 0 <= rank < world_size=1"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BatchLoader(Tiles(2), CROP, **{"batch_size": 1, "seed": 0, **options})


def test_empty_source_is_refused() -> None:
    with pytest.raises(UserError, match="no image"):
        BatchLoader(Tiles(0), CROP, batch_size=1, seed=0)


def collect(batches: Iterator[dict[str, Any]]) -> list[list[int]]:
    return [batch["index"].tolist() for batch in batches]


def test_evaluation_sees_every_item_once_in_order() -> None:
    assert collect(evaluation_batches(Tiles(7), CROP, 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert collect(evaluation_batches(Tiles(7), CROP, 2, rank=1, world_size=3)) == [[1, 4]]
    assert not collect(evaluation_batches(Tiles(1), CROP, 2, rank=1, world_size=2))


def test_evaluation_groups_whole_images_by_size() -> None:
    batches = list(evaluation_batches(Tiles(5, growing=2), Transform(), 4))
    assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert [batch["image"].shape[-1] for batch in batches] == [12, 13, 14]


def test_evaluation_leaves_out_what_cannot_be_read(caplog: pytest.LogCaptureFixture) -> None:
    assert collect(evaluation_batches(Tiles(4, broken=(1,)), CROP, 2)) == [[0, 2], [3]]
    assert "tile 1" in caplog.text


def test_evaluation_is_repeatable() -> None:
    assert_equal(list(evaluation_batches(Tiles(5), CROP, 2)), list(evaluation_batches(Tiles(5), CROP, 2)))


def test_images_become_numbers_on_the_device(device: torch.device) -> None:
    values = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(1, 1, 1, 3)
    batch = {"image": values, "mask": values, "condition": values, "label": torch.tensor([3]), "text": ["a"]}
    moved = to_device(batch, device, torch.float64)
    assert moved["image"].device.type == device.type
    expected = torch.tensor([-1.0, -0.6, 1.0], dtype=torch.float64)
    torch.testing.assert_close(moved["image"].flatten().cpu(), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(moved["condition"].flatten().cpu(), expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(moved["mask"].flatten().cpu(), (expected + 1) / 2, rtol=0, atol=1e-15)
    assert moved["label"].dtype == torch.int64
    assert moved["text"] == ["a"]
