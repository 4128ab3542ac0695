"""The store gives back what was written, whatever its types, grids and views; it refuses what is damaged."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from smalti.registry import UserError
from smalti.tokens.description import read_description
from smalti.tokens.packing import bits_of, narrowest
from smalti.tokens.store import TokenStore, shard_path
from smalti.tokens.writer import StoreWriter
from tests.tokens.stores import HASH, plan, small, tokens, write

SIZES = [(2,), (16, 300), (2**14,) * 3, (2**26, 5), (2**40, 3), (2**62, 7), (2**63 - 1, 2)]


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_what_is_read_is_what_was_written(sizes: tuple[int, ...], bits: bool, tmp_path: Path) -> None:
    codebooks = {f"c{number}": size for number, size in enumerate(sizes)}
    every = tokens(codebooks, 14, (3, 5)).reshape(7, 2, len(sizes), 3, 5)
    store = write(tmp_path / "s", plan(codebooks, 2, bits=bits), [{"indices": one} for one in every], {})
    for item in range(7):
        for view in range(2):
            assert np.array_equal(store.read(item, view)["indices"].astype(np.int64), every[item, view])
    items, views = [5, 0, 6, 6, 2], [1, 0, 1, 0, 0]
    assert np.array_equal(store.read(items, views)["indices"].astype(np.int64), every[items, views])
    blocks = [block["indices"].astype(np.int64) for block in store.blocks(most=50)]
    assert np.array_equal(np.concatenate(blocks), every.reshape(-1, *every.shape[2:]))
    assert store.verify() == []


def test_bytes_on_the_disk_are_the_narrowest(tmp_path: Path) -> None:
    for bits, length in ((False, 6 * (1 + 2)), (True, 3 + 7)):  # 6 tokens of 4 bits and of 9
        store = small(tmp_path / str(bits), (16, 300), bits=bits)
        assert shard_path(store.folder, 0).stat().st_size == 3 * 2 * length + 8 * bits
    assert [narrowest(size) for size in (1, 256, 257, 65537, 2**40)] == ["|u1", "|u1", "<u2", "<u4", "<i8"]
    assert [bits_of(size) for size in (1, 2, 3, 16384, 16385)] == [1, 1, 2, 14, 15]


def test_mixed_grids_keep_the_order_of_the_images(tmp_path: Path) -> None:
    grids = [(2, 3), (4, 4), (2, 3), (2, 3), (4, 4), (2, 3), (2, 3)]
    values = [{"indices": tokens({"c": 300}, 1, grid, seed)} for seed, grid in enumerate(grids)]
    store = write(tmp_path / "s", plan({"c": 300}), values, {"label": list(range(7))})
    assert store.grids == ((2, 3), (4, 4))
    assert len(store.description.shards) == 3  # five of one grid in shards of three, two of the other
    for item, value in enumerate(values):
        found = store[item]
        assert np.array_equal(found["indices"], value["indices"][0])
        assert (found["label"], found["name"]) == (item, f"{item}.png")
    with pytest.raises(UserError, match="grids 2 x 3 and 4 x 4 in one batch"):
        store.read([0, 1])


@pytest.mark.parametrize(("kind", "relative"), [("float32", 0.0), ("float16", 2**-11)])
def test_moments_of_a_continuous_bottleneck(kind: str, relative: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    values = [{name: rng.normal(size=(1, 4, 2, 3)).astype("f4") for name in ("mean", "logvar")} for _ in range(7)]
    what = plan({}, arrays=("mean", "logvar"), channels=4, float_type=kind)
    store = write(tmp_path / "s", what, values, {})
    for item, value in enumerate(values):
        for name in ("mean", "logvar"):
            assert store[item][name].dtype == kind
            np.testing.assert_allclose(store[item][name], value[name][0], rtol=relative, atol=1e-7)
    assert np.array_equal(store.read([3, 1])["logvar"], [store[3]["logvar"], store[1]["logvar"]])


def test_numbers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for number, (what, value, message) in enumerate(
        [
            (
                plan({}, arrays=("mean",), channels=1, float_type="float16"),
                {"mean": np.full((1, 1, 1, 1), 1e6)},
                "hold",
            ),
            (plan({"c": 4}), {"indices": np.full((1, 1, 1, 1), 4)}, "'c' from 4 to 4: expected 0 to 3"),
            (plan({"c": 4}), {"indices": np.full((1, 1, 1, 1), -1)}, "'c' from -1 to -1"),
        ]
    ):
        with pytest.raises(UserError, match=message):
            write(tmp_path / str(number), what, [value], {})


def test_columns_of_every_kind(tmp_path: Path) -> None:
    columns = {
        "label": list(range(7)),
        "weights": [0.1, 0.25, None, 1e300, -0.0, 2.0, 3.0],
        "text": ["a", "", "\u00e9t\u00e9\nzwei", "d", "e", "f", "caf\udce9"],
    }
    every = tokens({"c": 4}, 7, (1, 2))[:, None]
    store = write(tmp_path / "s", plan({"c": 4}), [{"indices": one} for one in every], columns)
    assert store.description.columns == {"label": "int64", "weights": "float64", "text": "text"}
    assert [store[item]["label"] for item in range(7)] == columns["label"]
    assert [store[item]["weights"] for item in (0, 1, 3)] == [0.1, 0.25, 1e300]
    assert np.isnan(store[2]["weights"])
    assert [store[item]["text"] for item in range(7)] == [*columns["text"][:6], "caf\\xe9"]
    assert store.names[-1] == "6.png"
    assert store.names[2:4] == ("2.png", "3.png")


def test_travels_to_another_process(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    copy = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copy[3]["indices"], store[3]["indices"])


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    assert len(TokenStore.open(store.folder, HASH)) == 7
    with pytest.raises(UserError, match=r"its tokens are of toys/1 \(weights abababababababab\), not of .* ee"):
        TokenStore.open(store.folder, "ee" * 32)


def damaged(folder: Path, name: str, how: str) -> str:
    path = folder / name
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "text":
        path.write_text("no JSON")
    else:
        told = json.loads(path.read_text())
        entry, value = json.loads(how)
        told[entry] = value
        path.write_text(json.dumps(told))
    return name


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("store.json", "gone", "not finished"),
        ("store.json", "cut", None),
        ("store.json", "text", "store.json: damaged"),
        ("store.json", '["schema_version", 7]', "schema_version=7: this smalti reads version 1"),
        ("store.json", '["schema_version", null]', "no schema_version"),
        ("store.json", '["count", "many"]', "damaged: count"),
        ("store.json", '["count", -1]', "damaged: count"),
        ("store.json", '["count", 8]', r"index.npy: int32 \(7, 2\): expected int32 \(8, 2\)"),
        ("store.json", '["colour", 8]', "'colour' is no entry"),
        ("store.json", '["views", []]', "damaged: views"),
        ("store.json", '["codebooks", {"c": 0}]', "damaged: codebooks.c"),
        ("shards/00001.bin", "gone", "00001.bin: missing"),
        ("shards/00001.bin", "cut", r"00001.bin: 107 bytes, expected 108: truncated"),
        ("index.npy", "gone", "index.npy: missing"),
        ("index.npy", "cut", "index.npy: damaged"),
        ("names.bin", "cut", "names.bin: 34 bytes, expected 35"),
        ("names.npy", "text", "names.npy: damaged"),
        ("column-0.npy", "gone", "column-0.npy: missing"),
    ],
)
def test_a_damaged_store_says_what_is_damaged(name: str, how: str, message: str | None, tmp_path: Path) -> None:
    folder = small(tmp_path / "s").folder
    damaged(folder, name, how)
    if message is None:  # the newline at the end of store.json
        assert len(TokenStore.open(folder)) == 7
        return
    with pytest.raises(UserError, match=message):
        TokenStore.open(folder)


@pytest.mark.parametrize("name", ["shards/00000.bin", "shards/00002.bin", "index.npy", "names.bin", "column-0.npy"])
def test_one_flipped_bit_is_found(name: str, tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    data = bytearray((store.folder / name).read_bytes())
    data[-1] ^= 4
    (store.folder / name).write_bytes(bytes(data))
    [problem] = store.verify()
    assert problem.startswith(f"{store.folder / name}: SHA-256")


def test_a_damaged_index_leads_nowhere(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    data = bytearray((store.folder / "index.npy").read_bytes())
    data[-8] = 99
    (store.folder / "index.npy").write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"index\.npy: damaged: no shard 99"):
        TokenStore.open(store.folder)[6]


def test_what_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, message in (
        (tmp_path / "absent", "no such folder"),
        (tmp_path, "no token store"),
        (tmp_path / "file", "file"),
    ):
        with pytest.raises(UserError, match=message):
            TokenStore.open(path)


@pytest.mark.parametrize("index", [-1, 7, 10**9])
def test_no_such_image(index: int, tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    with pytest.raises(IndexError):
        store[index]
    with pytest.raises(IndexError):
        store.read([0, index])


def test_no_such_view(tmp_path: Path) -> None:
    store = small(tmp_path / "s")
    assert np.array_equal(store.read(2, "view-1")["indices"], store.read(2, 1)["indices"])
    with pytest.raises(UserError, match=r"no such view .* did you mean 'view-1'"):
        store.read(2, "veiw-1")
    for view in (-1, 2):
        with pytest.raises(IndexError):
            store.read(2, view)


def test_shards_that_are_done_are_those_that_are_whole(tmp_path: Path) -> None:
    folder = small(tmp_path / "s").folder
    writer = StoreWriter(folder, plan({"c0": 16, "c1": 300}, 2))
    writer.begin(resume=True)
    assert [writer.is_done(number) for number in range(4)] == [True, True, True, False]
    shard_path(folder, 0).write_bytes(b"x")
    shard_path(folder, 1).with_suffix(".json").write_text("{")
    shard_path(folder, 2).unlink()
    assert not any(writer.is_done(number) for number in range(3))


def test_a_store_that_is_there_is_kept(tmp_path: Path) -> None:
    folder = small(tmp_path / "s").folder
    with pytest.raises(UserError, match="exists, a token store: --resume goes on"):
        StoreWriter(folder, plan({"c0": 16, "c1": 300}, 2)).begin(resume=False)
    with pytest.raises(UserError, match=r"begun otherwise: codebooks.c1: 300 in the store, 301 now; bits: False"):
        StoreWriter(folder, plan({"c0": 16, "c1": 301}, 2, bits=True)).begin(resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "photo.png").write_text("precious")
    for resume in (False, True):
        with pytest.raises(UserError, match="is not empty, and no token store"):
            StoreWriter(tmp_path / "other", plan({"c": 16})).begin(resume=resume)


def test_store_json_says_no_more_than_the_plan_and_the_data(tmp_path: Path) -> None:
    first, second = small(tmp_path / "a").folder, small(tmp_path / "b").folder
    assert (first / "store.json").read_bytes() == (second / "store.json").read_bytes()
    told = read_description(first)
    assert (told.count, told.left_out, told.tokenizer.hash) == (7, 0, HASH)
    shutil.rmtree(second)
