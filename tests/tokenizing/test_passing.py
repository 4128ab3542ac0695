"""The pass: what is stored decodes to the reconstruction; kills, processes and restarts change no byte."""

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed as dist
from torch import multiprocessing

from smalti.data.image_folder import ImageFolder
from smalti.data.loader import to_device
from smalti.data.transforms import Transform
from smalti.engine.lock import FolderLock
from smalti.nn.hashing import hash_of
from smalti.registry import UserError
from smalti.tokenizing.job import Job
from smalti.tokenizing.passing import tokenize
from smalti.tokens.store import TokenStore, shard_path
from tests.evaluation.tokenizers import photos
from tests.tokenizing.jobs import KINDS, contents, job, model

MIXED = ((16, 24), (8, 12), (16, 24))


def made(asked: Job, out: Path, **options: Any) -> TokenStore:
    store = tokenize(asked, out, **options)
    assert store is not None
    return store


def pixels(source: ImageFolder, item: int) -> torch.Tensor:
    return to_device({"image": Transform()({"image": source[item]["image"]}, random.Random(0))["image"][None]}, "cpu")[
        "image"
    ]


@pytest.mark.parametrize("bits", [False, True])
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_is_read_decodes_to_the_reconstruction(kind: str, bits: bool, tmp_path: Path) -> None:
    asked = job(
        photos(tmp_path / "in", 7, MIXED), kind, batch_size=1, bits=bits and kind not in ("gaussian", "identity")
    )
    store = made(asked, tmp_path / "s")
    network = asked.model
    seen = set()
    for item in range(7):
        found, image = store[item], pixels(asked.source, item)
        with torch.inference_mode():
            if network.codebook_sizes:
                again = network.decode_indices(torch.from_numpy(found["indices"].astype("i8"))[None])
                seen |= set(found["indices"].flatten().tolist())
            else:
                again = network.decode(torch.tensor(found["mean" if kind == "gaussian" else "latent"])[None])
            assert torch.equal(again, network.reconstruct(image))
        if kind == "gaussian":
            with torch.inference_mode():
                assert np.array_equal(found["logvar"], network.encode(image).posterior.logvar[0])
    assert not network.codebook_sizes or len(seen) > 4
    assert store.grids == ((4, 6), (2, 3))
    store.require(hash_of(network.state_dict()))


def test_every_view_is_that_of_its_image(tmp_path: Path) -> None:
    asked = job(photos(tmp_path / "in", 4, ((30, 40),)), views="ten-crop", size=16, batch_size=6)
    store = made(asked, tmp_path / "s")
    for item in range(4):
        views = asked.framing({"image": asked.source[item]["image"]}, random.Random(0))["image"]
        expected = asked.model.encode(to_device({"image": views}, "cpu")["image"]).indices
        assert np.array_equal(store.read([item] * 10, range(10))["indices"], expected)
    assert (store.views, store.description.image_size) == (asked.framing.names, (16, 16))


def killed_at(step: int, work: Callable[[], Any]) -> int:
    """Runs ``work`` in a process that kills itself at its ``step``-th write, rename or flush; its exit status."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [step]

    def counting(function: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)

        return counted

    try:
        os.fsync, Path.replace, Path.chmod = map(counting, (os.fsync, Path.replace, Path.chmod))  # type: ignore[misc]
        np.concatenate = counting(np.concatenate)
        work()
        os._exit(left[0] % 200)
    except BaseException:
        os._exit(255)


def test_a_run_that_was_killed_anywhere_ends_as_one_that_was_not(tmp_path: Path) -> None:
    asked = job(photos(tmp_path / "in", 7, MIXED), batch_size=2)
    whole = contents(made(asked, tmp_path / "whole").folder)
    assert len(asked.shares) == 3
    steps = 190 - killed_at(190, lambda: tokenize(asked, tmp_path / "counted"))
    assert 20 < steps < 100
    for step in sorted(random.Random(0).sample(range(steps), 10)):
        out = tmp_path / f"killed-{step}"
        assert killed_at(step, lambda out=out: tokenize(asked, out)) == -signal.SIGKILL
        assert contents(out) != whole
        made(asked, out, resume=True)
        assert contents(out) == whole, step


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = job(photos(tmp_path / "in", 7, MIXED))
    whole = contents(made(asked, tmp_path / "s").folder)
    damaged = shard_path(tmp_path / "s", 1)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    encoded = []
    encode = asked.model.encode
    monkeypatch.setattr(asked.model, "encode", lambda images: encoded.append(len(images)) or encode(images))
    told: list[tuple[int, int]] = []
    made(asked, tmp_path / "s", resume=True, progress=lambda done, of: told.append((done, of)))
    assert (sum(encoded), told) == (2, [(2, 2)])
    assert contents(tmp_path / "s") == whole
    made(asked, tmp_path / "s", resume=True)
    assert sum(encoded) == 2


def work(number: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meeting", world_size=ranks, rank=number)
    try:
        asked = job(Path(folder) / "in", model=model(), views="flip")
        store = tokenize(asked, Path(folder) / "several")
        assert (store is None) == (number > 0)
        shard_path(Path(folder) / "several", 1).unlink() if number == 0 else None
        dist.barrier()
        with pytest.raises(UserError, match="--resume goes on with it"):  # said on all of them
            tokenize(asked, Path(folder) / "several")
        tokenize(asked, Path(folder) / "several", resume=True)
    finally:
        dist.destroy_process_group()


def test_several_processes_write_what_one_writes(tmp_path: Path) -> None:
    asked = job(photos(tmp_path / "in", 11, MIXED), views="flip")
    made(asked, tmp_path / "one")
    multiprocessing.start_processes(work, (2, str(tmp_path)), nprocs=2, start_method="spawn")  # type: ignore[no-untyped-call]
    assert contents(tmp_path / "several") == contents(tmp_path / "one")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "tokens"}, r"tokenizer.hash: .* codebooks.a: 300 in the store, None now"),
        ({"views": "flip"}, r"transform.views: 'none' in the store, 'flip' now"),
        ({"size": 16}, r"image_size: None in the store, \[16, 16\] now"),
        ({"batch_size": 3}, "batch_size: 4 in the store, 3 now"),
        ({"bits": True}, "bits: False in the store, True now"),
        ({"shard_images": 9}, "shard_images: 3 in the store, 9 now"),
        ({"one more": True}, "data.items: 7 in the store, 8 now"),
        ({"other": True}, "data.names_sha256"),
        ({"max_pixels": 10**6}, "data.options.max_pixels: 100000000 in the store, 1000000 now"),
    ],
)
def test_a_store_is_gone_on_with_only_as_it_was_begun(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 7, MIXED)
    made(job(folder), tmp_path / "s")
    before = contents(tmp_path / "s")
    if change.pop("one more", False):
        photos(folder, 8, MIXED)
    if change.pop("other", False):
        (folder / "0.png").rename(folder / "00.png")
    if "model" in change:
        change["model"] = model(change["model"])
    if "max_pixels" in change:
        change["source"] = ImageFolder(str(folder), max_pixels=change.pop("max_pixels"))
    with pytest.raises(UserError, match=message):
        tokenize(job(folder, **change), tmp_path / "s", resume=True)
    assert contents(tmp_path / "s") == before


def test_a_folder_that_another_process_writes_is_refused(tmp_path: Path) -> None:
    asked = job(photos(tmp_path / "in", 3))
    lock = FolderLock(tmp_path / "s")
    assert lock.take() == ""
    try:
        with pytest.raises(UserError, match="a run is going on in"):
            tokenize(asked, tmp_path / "s")
    finally:
        lock.release()
    assert len(made(asked, tmp_path / "s")) == 3
    assert not (tmp_path / "s" / ".lock").exists()


def test_labels_and_other_columns_stay_with_their_images(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 7, MIXED)
    rows = [f"{item}.png,{item % 3},{item / 8},t {item}" for item in reversed(range(7))]
    (tmp_path / "t.csv").write_text("\n".join(["file,label,weight,text", *rows]) + "\n")
    store = made(job(folder, table=str(tmp_path / "t.csv")), tmp_path / "s")
    for item in range(7):
        found = store[item]
        assert (found["name"], found["label"], found["weights"], found["text"]) == (
            f"{item}.png", item % 3, item / 8, f"t {item}",
        )  # fmt: skip


@pytest.mark.parametrize("size", [None, 16])
def test_an_image_that_turns_out_damaged_is_left_out(
    size: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = photos(tmp_path / "in", 7, MIXED)
    data = bytearray((folder / "4.png").read_bytes())
    data[60:90] = bytes(30)
    (folder / "4.png").write_bytes(bytes(data))
    asked = job(folder, size=size)
    store = made(asked, tmp_path / "s")
    assert list(store.names) == [f"{item}.png" for item in (0, 1, 2, 3, 5, 6)]
    assert (store.description.left_out, store.description.data.items) == (1, 7)
    assert "4.png" in caplog.text
    assert store.verify() == []


def test_images_that_do_not_fit_are_named_before_anything_is_encoded(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 5, ((16, 24), (16, 24), (18, 24)))
    with pytest.raises(UserError, match=r"2.png: 18 x 24 pixels: .*factor 4; --size"):
        tokenize(job(folder), tmp_path / "s")
    assert not (tmp_path / "s").exists()
    with pytest.raises(UserError, match="size 18: expected a multiple of the model's factor 4"):
        tokenize(job(folder, size=18), tmp_path / "s")


def test_options_without_a_use_are_refused(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 2, ((16, 24),))
    with pytest.raises(UserError, match="bits pack tokens"):
        tokenize(job(folder, "gaussian", bits=True), tmp_path / "s")
    with pytest.raises(UserError, match="float16 is for the numbers"):
        tokenize(job(folder, half=True), tmp_path / "s")


def test_weights_that_are_spoilt_are_said(tmp_path: Path) -> None:
    asked = job(photos(tmp_path / "in", 2, ((16, 24),)))
    next(asked.model.encoder.parameters()).data.fill_(torch.nan)
    with pytest.raises(UserError, match=r"0\.png or one after it: its latent is not finite"):
        tokenize(asked, tmp_path / "s")
    assert not (tmp_path / "s" / "store.json").exists()


def test_columns_that_no_store_holds_are_refused(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 2, ((16, 24),))
    shutil.copytree(folder, tmp_path / "masks")
    source = ImageFolder(str(folder), columns={"mask": str(tmp_path / "masks")})
    with pytest.raises(UserError, match="column 'mask' has images or arrays"):
        tokenize(job(folder, source=source), tmp_path / "s")


def test_half_the_bytes_of_moments(tmp_path: Path) -> None:
    folder = photos(tmp_path / "in", 2, ((16, 24),))
    network = model("gaussian")
    full, half = (made(job(folder, model=network, half=half), tmp_path / str(half)) for half in (False, True))
    for item in range(2):
        for name in ("mean", "logvar"):
            assert np.array_equal(half[item][name], full[item][name].astype("f2"))
    assert json.loads((half.folder / "store.json").read_text())["float_type"] == "float16"
