"""Tar archives of samples: what a folder of the same files gives, in any order, with every damage named."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smalti.data.image_folder import ImageFolder
from smalti.data.loader import BatchLoader, evaluation_batches
from smalti.data.transforms import Transform
from smalti.data.webdataset import WebDataset
from smalti.registry import UserError

CROP = Transform(size=8, crop="adm_random", flip=True)


def picture(seed: int, kind: str = "PNG", deep: bool = False) -> bytes:
    random = np.random.default_rng(seed)
    made = random.integers(0, 65536, (12, 10), np.uint16) if deep else random.integers(0, 256, (12, 10, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(made).save(file, kind)
    return file.getvalue()


def write(path: Path, files: Mapping[str, bytes], mode: Any = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=form) as archive:
        folder = tarfile.TarInfo("some-folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def samples(first: int, count: int) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for number in range(first, first + count):
        found[f"{number:04d}.png"] = picture(number)
        found[f"{number:04d}.CLS"] = str(number % 3).encode()
        found[f"{number:04d}.txt"] = f"café {number}".encode()
        found[f"{number:04d}.json"] = json.dumps({"score": number / 4, "tags": [1]}).encode()
        found[f"{number:04d}.mask.png"] = picture(number)
        found[f"{number:04d}.npy"] = b""
    return found


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write(tmp_path / "t-08.tar", samples(0, 3))
    write(tmp_path / "t-09.tar", samples(3, 2), form=tarfile.GNU_FORMAT)
    write(tmp_path / "t-10.tar", samples(5, 1), form=tarfile.USTAR_FORMAT)
    return tmp_path


COLUMNS = {"label": "cls", "text": ".txt", "score": "json.score", "mask": "mask.png"}


def test_items_are_those_of_the_files(shards: Path) -> None:
    source = WebDataset(str(shards), columns=COLUMNS)
    assert source.names == tuple(f"t-{s}/{n:04d}.png" for n, s in enumerate(["08"] * 3 + ["09"] * 2 + ["10"]))
    for index in (5, 0, 3):  # in any order
        item = source[index]
        expected = Image.open(io.BytesIO(picture(index)))
        assert item["image"].tobytes() == expected.tobytes()
        assert item["mask"].tobytes() == expected.convert("L").tobytes()
        assert (item["label"], item["text"], item["score"]) == (index % 3, f"café {index}", index / 4)


@pytest.mark.parametrize("path", ["t-{08..10}.tar", "t-*.tar", "", "t-08.tar"])
def test_archives_are_named_by_pattern_folder_or_file(shards: Path, path: str) -> None:
    source = WebDataset(str(shards / path))
    assert len(source) == (3 if path == "t-08.tar" else 6)
    assert sorted(source.names) == list(source.names)


def test_training_sees_what_a_folder_gives(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number:04d}.png").write_bytes(picture(number))
    loaders = [
        BatchLoader(source, CROP, batch_size=4, seed=3)
        for source in (ImageFolder(str(folder)), WebDataset(str(shards / "t-{08..10}.tar")))
    ]
    for _, one, other in zip(range(4), *(loader.batches(2) for loader in loaders), strict=False):
        assert one["index"].tolist() == other["index"].tolist()
        assert one["image"].equal(other["image"])


def test_workers_read_what_one_process_reads(shards: Path) -> None:
    source = WebDataset(str(shards), columns={"label": "cls"})
    batches = {}
    for workers in (0, 2):
        stream = BatchLoader(source, CROP, batch_size=4, seed=0, workers=workers).batches(1)
        batches[workers] = [next(stream) for _ in range(3)]
        stream.close()
    for one, other in zip(batches[0], batches[2], strict=True):
        assert one["image"].equal(other["image"])
        assert one["label"].equal(other["label"])


def test_sixteen_bits_are_read_as_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "deep.png").write_bytes(picture(0, deep=True))
    write(tmp_path / "deep.tar", {"deep.png": picture(0, deep=True)})
    options: Any = {"value_range": 65535, "image_channels": 1}
    folder, archive = ImageFolder(str(tmp_path), **options), WebDataset(str(tmp_path), **options)
    assert folder[0]["image"].tobytes() == archive[0]["image"].tobytes()


def test_what_cannot_be_decoded_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(
        tmp_path / "a.tar", {"0.jpg": b"no image", "1.png": picture(1), "2.txt": b"alone", "3.webp": picture(3, "WEBP")}
    )
    source = WebDataset(str(tmp_path))
    assert source.names == ("a/0.jpg", "a/1.png", "a/3.webp")
    assert "1 samples" in caplog.text
    assert "a/2" in caplog.text
    (batch,) = evaluation_batches(source, Transform(size=8, crop="center"), 4)
    assert batch["index"].tolist() == [1, 2]
    assert "a/0.jpg: not an image" in caplog.text


def test_a_new_size_is_another_content(shards: Path) -> None:
    def consists_of() -> dict[str, list[Any]]:
        groups = WebDataset(str(shards), columns={"label": "cls", "score": "json.score"}).fingerprint()
        return {name: list(entries) for name, entries in groups.items()}

    before = consists_of()
    write(shards / "t-10.tar", samples(5, 1) | {"0005.png": picture(99) + b".", "0005.json": b'{"score": 100}'})
    after = consists_of()
    assert before.keys() == after.keys() == {"images", "columns.label", "columns.score"}
    assert before["columns.label"] == after["columns.label"]
    for name in ("images", "columns.score"):
        assert [a == b for a, b in zip(before[name], after[name], strict=True)] == [True] * 5 + [False]


def damaged(folder: Path, what: str) -> None:
    whole = write(folder / "a.tar", samples(0, 2)).read_bytes()
    if what == "cut":
        (folder / "a.tar").write_bytes(whole[: whole.index(picture(1)) + 20])
    elif what == "compressed":
        write(folder / "a.tar", samples(0, 2), mode="w:gz")
    elif what == "text":
        (folder / "a.tar").write_text("no archive at all " * 99)
    elif what == "empty":
        (folder / "a.tar").write_bytes(b"")
    elif what == "header":
        at = 512 + whole.index(b"0001.png") // 512 * 512 - 512
        (folder / "a.tar").write_bytes(whole[:at] + b"\xff" * 512 + whole[at + 512 :])


@pytest.mark.parametrize("what", ["cut", "compressed", "text", "empty", "header"])
def test_a_damaged_archive_is_named(tmp_path: Path, what: str) -> None:
    damaged(tmp_path, what)
    with pytest.raises(UserError, match=r"a\.tar|no image in these archives") as caught:
        WebDataset(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "none.tar"}, "no archive"),
        ({"path": "x-{0..2}.tar"}, r"no archive .*x-0\.tar"),
        ({"columns": {"label": "class"}}, r"columns\.label: t-08/0000 has no file \.class, only png, cls"),
        ({"columns": {"index": "cls"}}, r"columns\.index: .*exists already"),
        ({"suffixes": ["gif"]}, "looked for gif"),
        ({"image_channels": 2}, "expected 1, 3 or 4"),
        ({"image_channels": 4, "background": "white"}, "which keeps alpha"),
    ],
)
def test_wrong_options_are_named(shards: Path, options: dict[str, Any], message: str) -> None:
    path = str(shards / options.pop("path", ""))
    with pytest.raises((UserError, ValueError), match=message):
        WebDataset(path, **options)


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("json.nothing", r"columns\.it: \.json of t-08/0000\.png: no entry 'nothing'"),
        ("json.tags", "expected a number or text"),
        ("npy", r"\.npy of t-08/0000\.png"),
    ],
)
def test_a_column_that_cannot_be_read_is_named(shards: Path, suffix: str, message: str) -> None:
    source = WebDataset(str(shards), columns={"it": suffix})
    with pytest.raises(UserError, match=message):
        source[0]


def test_arrays_are_columns(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.save(file, np.arange(4.0))
    write(tmp_path / "a.tar", {"0.png": picture(0), "0.npy": file.getvalue()})
    batch = next(BatchLoader(WebDataset(str(tmp_path), columns={"text": "npy"}), CROP, batch_size=2, seed=0).batches())
    assert batch["text"].tolist() == [[0.0, 1.0, 2.0, 3.0]] * 2


def test_an_archive_that_shrinks_is_named(shards: Path) -> None:
    source = WebDataset(str(shards))
    (shards / "t-08.tar").write_bytes(b"")
    with pytest.raises(UserError, match=r"t-08\.tar: it ends within a file"):
        source[0]
