"""A token store as training data: views by key, resume, workers, batches without images."""

import random
from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smalti.data._labels import with_classes
from smalti.data.loader import BatchLoader, evaluation_batches, to_device
from smalti.data.tokens import Tokens
from smalti.data.transforms import Transform
from smalti.registry import UserError
from tests.tokens.stores import plan, small, tokens, write

PLAIN = Transform()


def batches(source: Tokens, count: int, start: int = 0, **options: Any) -> list[dict[str, Any]]:
    loader = BatchLoader(source, PLAIN, **{"batch_size": 2, "seed": 3, **options})
    with closing(loader.batches(start)) as found:  # type: ignore[type-var]
        return list(islice(found, count))


def equal(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> bool:
    return all(
        one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
        for one, two in zip(left, right, strict=True)
    )


def test_a_batch_has_tokens_and_no_image(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    source = Tokens(str(store.folder))
    [batch] = batches(source, 1, batch_size=3)
    assert set(batch) == {"indices", "label", "index", "position"}
    assert (batch["indices"].shape, batch["indices"].dtype) == ((3, 2, 2, 3), torch.int64)
    moved = to_device(batch, "cpu")
    assert torch.equal(moved["indices"], batch["indices"])
    assert batch["label"].tolist() == [index % 3 for index in batch["index"].tolist()]
    assert (dict(source.codebooks), source.grid, source.tokenizer.path) == ({"c0": 16, "c1": 300}, (2, 3), "toys/1")


def test_the_view_is_drawn_by_seed_epoch_and_index(tmp_path: Path) -> None:
    store = small(tmp_path / "s", views=4)
    source = Tokens(str(store.folder))
    seen = Counter()
    for batch in batches(source, 70):
        for indices, index, position in zip(*(batch[name] for name in ("indices", "index", "position")), strict=True):
            rng = random.Random(f"3/{int(position) // 7}/{int(index)}")
            view = rng.randrange(4)
            seen[view] += 1
            assert np.array_equal(indices, store.read(int(index), view)["indices"])
    assert min(seen.values()) > 15  # 140 draws of 4 views


def test_resume_ranks_and_workers_see_one_stream(tmp_path: Path) -> None:
    source = Tokens(str(small(tmp_path / "s", views=3).folder))
    whole = batches(source, 9)
    assert equal(batches(source, 5, start=4), whole[4:])
    assert equal(batches(source, 9, workers=2), whole)
    ranks = [batches(source, 9, batch_size=1, rank=rank, world_size=2) for rank in (0, 1)]
    for number, batch in enumerate(whole):
        assert torch.equal(torch.cat([rank[number]["indices"] for rank in ranks]), batch["indices"])


@pytest.mark.parametrize("views", ["first", "random"])
def test_where_nothing_is_drawn_the_first_view_is_read(views: Any, tmp_path: Path) -> None:
    store = small(tmp_path / "s", views=3)
    for batch in evaluation_batches(Tokens(str(store.folder), views=views), PLAIN, 4):
        assert np.array_equal(batch["indices"], store.read(batch["index"].numpy())["indices"])
    if views == "first":
        for batch in batches(Tokens(str(store.folder), views="first"), 8):
            assert np.array_equal(batch["indices"], store.read(batch["index"].numpy())["indices"])


def test_every_view_may_be_an_item(tmp_path: Path) -> None:
    store = small(tmp_path / "s", views=3)
    source = Tokens(str(store.folder), views="all")
    assert (len(source), len(source.names), source.names[4]) == (21, 21, "1.png:view-1")
    assert source.names[3:5] == ("1.png:view-0", "1.png:view-1")
    assert [source[item]["label"] for item in range(21)] == list(source.labels or ())
    for item in (0, 4, 20):
        assert np.array_equal(source[item]["indices"], store.read(item // 3, item % 3)["indices"])
    [batch] = batches(source, 1)
    for indices, index in zip(batch["indices"], batch["index"].tolist(), strict=True):
        assert np.array_equal(indices, source[index]["indices"])


def test_a_batch_ends_where_the_grid_changes(tmp_path: Path) -> None:
    grids = [(2, 3), (2, 3), (4, 4), (2, 3)]
    values = [{"indices": tokens({"c": 9}, 1, grid, seed)} for seed, grid in enumerate(grids)]
    source = Tokens(str(write(tmp_path / "s", plan({"c": 9}, items=4), values, {}).folder))
    assert [batch["index"].tolist() for batch in evaluation_batches(source, PLAIN, 8)] == [[0, 1], [2], [3]]
    with pytest.raises(UserError, match=r"2 grids \(2 x 3, 4 x 4\)"):
        _ = source.grid
    with pytest.raises(UserError, match="column 'indices' differs in size within one batch"):
        batches(source, 1, batch_size=4)


def test_moments_are_numbers_that_networks_take(tmp_path: Path) -> None:
    values = [{name: np.full((1, 2, 1, 3), seed, "f4") for name in ("mean", "logvar")} for seed in range(4)]
    what = plan({}, items=4, arrays=("mean", "logvar"), channels=2, float_type="float16")
    source = Tokens(str(write(tmp_path / "s", what, values, {}).folder))
    [batch] = batches(source, 1)
    assert {name: (batch[name].dtype, batch[name].shape) for name in ("mean", "logvar")} == dict.fromkeys(
        ("mean", "logvar"), (torch.float32, (2, 2, 1, 3))
    )
    assert batch["mean"][:, 0, 0, 0].tolist() == batch["index"].tolist()


def test_a_crop_of_tokens_is_refused(tmp_path: Path) -> None:
    source = Tokens(str(small(tmp_path / "s").folder))
    loader = BatchLoader(source, Transform(size=2, crop="center"), batch_size=1, seed=0)
    with pytest.raises(UserError, match=r"transform: .*size=2.*no images \(indices, label\)"):
        next(loader.batches())


def test_labels_are_checked_and_views_drawn_all_the_same(tmp_path: Path) -> None:
    source = Tokens(str(small(tmp_path / "s", views=3).folder))
    assert with_classes(source, 3, "data") is source
    with pytest.raises(UserError, match="label 2: expected a whole number from 0 to 1"):
        with_classes(source, 2, "data")
    source.labels = None  # as of a source that knows them when items are read
    assert equal(batches(with_classes(source, 3, "data"), 6), batches(source, 6))


def test_columns_are_known_before_the_store_is_opened(tmp_path: Path) -> None:
    folder = small(tmp_path / "s").folder
    assert Tokens.columns_of({"path": str(folder)}) == ("indices", "label") == Tokens(str(folder)).columns
    assert Tokens.columns_of({"path": str(tmp_path / "absent")}) == ("indices", "*")


def test_a_store_that_is_another_says_so(tmp_path: Path) -> None:
    first, second = (Tokens(str(small(tmp_path / name, sizes).folder)) for name, sizes in (("a", (16,)), ("b", (9,))))
    assert first.fingerprint() != second.fingerprint()
    assert first.fingerprint() == Tokens(str(tmp_path / "a")).fingerprint()
