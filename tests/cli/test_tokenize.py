"""``smalti tokenize``, ``tokens`` and ``detokenize``: from photos to a store and back, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import smalti
from smalti.cli.detokenize import picture_name
from smalti.data.grid import to_pillow
from smalti.data.tokens import Tokens
from smalti.engine.lock import FolderLock
from smalti.registry import UserError
from smalti.tokens.store import TokenStore
from tests.cli.conftest import TINY, Verb
from tests.cli.test_bad_input import flip_a_byte, refused
from tests.tokenizing.jobs import contents
from tests.tokens.stores import HASH, small


@pytest.fixture(scope="session")
def made(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the trained run: six photos of two sizes and their mirror images, with labels. Not to be changed."""
    from tests.evaluation.tokenizers import photos

    folder = tmp_path_factory.mktemp("tokens")
    images = photos(folder / "photos", 6, ((16, 24), (8, 12)))
    (folder / "t.csv").write_text("file,label\n" + "".join(f"{item}.png,{item % 3}\n" for item in range(6)))
    from typer.testing import CliRunner

    from smalti.cli._app import app

    options = ["--views", "flip", "--table", str(folder / "t.csv"), "--shard-images", "2"]
    command = ["tokenize", str(trained), "--data", str(images), "--out", str(folder / "store"), *options]
    result = CliRunner().invoke(app, command, prog_name="smalti")
    assert result.exit_code == 0, result.output
    assert "6 images, 2 views each ->" in result.stdout
    return folder / "store"


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_pictures_are_the_reconstructions(smalti_cli: Verb, trained: Path, made: Path, tmp_path: Path) -> None:
    result = smalti_cli("detokenize", made, "--out", tmp_path / "pictures", "--batch-size", 1)
    assert result.exit_code == 0, result.output
    model = smalti.load(trained)
    from smalti.cli.reconstruct import open_image

    for item in range(6):
        made_of = model.reconstruct(open_image(made.parent / "photos" / f"{item}.png", 3))[0]
        with Image.open(tmp_path / "pictures" / f"{item}.png") as picture:
            assert np.array_equal(np.array(picture), np.array(to_pillow(made_of)))


def test_a_view_and_a_few(smalti_cli: Verb, trained: Path, made: Path, tmp_path: Path) -> None:
    options = ["--view", "flip", "--limit", 2, "--model", trained]
    assert smalti_cli("detokenize", made, "--out", tmp_path / "p", *options).exit_code == 0
    assert sorted(path.name for path in (tmp_path / "p").iterdir()) == ["0.png", "1.png"]
    model, store = smalti.load(trained), TokenStore.open(made)
    import torch

    tokens = torch.from_numpy(store.read(0, "flip")["indices"].astype("i8"))[None]
    with Image.open(tmp_path / "p" / "0.png") as picture:
        assert np.array_equal(np.array(picture), np.array(to_pillow(model.decode_indices(tokens)[0])))
    refused(smalti_cli("detokenize", made, "--out", tmp_path / "p"), "is not empty", "--force")
    refused(smalti_cli("detokenize", made, "--out", tmp_path / "q", "--view", "flap"), "did you mean 'flip'")


def test_what_a_store_is_and_how_its_codes_are_used(smalti_cli: Verb, made: Path) -> None:
    told = json.loads(smalti_cli("tokens", made, "--json", "--check").stdout)
    assert (told["count"], told["shards"], told["grids"], told["checked"]) == (6, 4, [[4, 6], [2, 3]], True)
    store = TokenStore.open(made)
    every = np.concatenate([store.read(item, view)["indices"].ravel() for item in range(6) for view in range(2)])
    share = np.bincount(every, minlength=16) / every.size
    found = told["usage"]["codebook"]
    assert found["tokens"] == every.size == 2 * 3 * (24 + 6)
    assert found["usage"] == np.count_nonzero(share) / 16
    assert found["perplexity"] == pytest.approx(np.exp(-sum(p * np.log(p) for p in share if p)))
    text = smalti_cli("tokens", made).stdout
    for word in (
        "tokens, smallest integer type",
        "4 x 6, 2 x 3",
        "label (int64)",
        "codebook",
        "no (--check)",
        "perplexity",
    ):
        assert word in text
    assert "perplexity" not in smalti_cli("tokens", made, "--no-usage").stdout


def test_usage_of_several_codebooks_one_too_large_to_count(smalti_cli: Verb, tmp_path: Path) -> None:
    folder = small(tmp_path / "s", (16, 2**40), bits=True).folder
    told = json.loads(smalti_cli("tokens", folder, "--json").stdout)["usage"]
    assert told["c1"] == {"size": 2**40, "tokens": 84, "usage": None, "perplexity": None}
    assert 0 < told["c0"]["usage"] <= 1
    assert "1,099,511,627,776" in smalti_cli("tokens", folder).stdout


def read_all(folder: Path) -> int:
    """As training would; how many items that were."""
    source = Tokens(str(folder), views="all")
    return sum(1 for index in range(len(source)) if source[index])


def test_a_flipped_byte_is_found(smalti_cli: Verb, copy: Path) -> None:
    flip_a_byte(copy / "shards" / "00002.bin")
    refused(smalti_cli("tokens", copy, "--check"), "00002.bin: SHA-256")
    refused(smalti_cli("tokens", copy), "a token ", "of 'codebook', which has 16 codes")
    with pytest.raises(UserError, match="which has 16 codes"):
        read_all(copy)
    flip_a_byte(copy / "shards" / "00002.bin")
    assert read_all(copy) == 12


def test_resume_ends_as_an_uninterrupted_run(smalti_cli: Verb, trained: Path, made: Path, copy: Path) -> None:
    whole = contents(copy)
    command = ["tokenize", trained, "--data", made.parent / "photos", "--out", copy]
    command += ["--views", "flip", "--table", made.parent / "t.csv", "--shard-images", 2]
    refused(smalti_cli(*command), "exists, a token store: --resume goes on with it")
    (copy / "store.json").unlink()
    (copy / "shards" / "00001.bin").unlink()
    refused(smalti_cli(*command), "a token store that is not finished")
    refused(smalti_cli("tokens", copy), "not finished", "--resume")
    assert smalti_cli(*command, "--resume").exit_code == 0
    assert contents(copy) == whole
    refused(smalti_cli(*command, "--resume", "--bits"), "begun otherwise", "bits: False in the store, True now")


def test_a_source_that_is_described(smalti_cli: Verb, tmp_path: Path) -> None:
    grey = ["model.encoder.image_channels=1", "model.decoder.image_channels=1"]
    smalti.build(TINY, [*grey, "data.source={type: digits}", "data.transform.size=8"]).save_pretrained(tmp_path / "m")
    command = ["tokenize", tmp_path / "m", "--out", tmp_path / "s", "--data"]
    assert smalti_cli(*command, "{type: digits, part: held_out}", "--batch-size", 64).exit_code == 0
    store = TokenStore.open(tmp_path / "s")
    assert (len(store), store.grids, store[7]["label"], store[7]["name"]) == (599, ((2, 2),), 1, "digit-0021")
    assert store.description.data.options == {"part": "held_out"}
    refused(smalti_cli(*command, "{type: photos}"), "images of 3 channels: the model takes images of 1")
    refused(smalti_cli(*command, "{type: tokens, path: s}"), "s")
    refused(smalti_cli(*command, "{type: digist}"), "did you mean 'digits'")
    refused(smalti_cli(*command, "{type: digits"), "--data")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--size", 18], "size 18: expected a multiple of the model's factor 4"),
        (["--views", "ten-crop"], "ten crops need a size"),
        (["--views", "ten-crop", "--size", 8, "--crop-ratio", 0.5], "crop ratio 0.5"),
        (["--crop-ratio", 1.1], "views='none' has none"),
        (["--actors", 2], "--actors 2: needs --engine ray"),
        (["--half"], "this one has tokens"),
        (["--table", "absent.csv"], "absent.csv"),
        (["--size", 65532, "--batch-size", 2000000000, "--views", "ten-crop"], "lower --size or --batch-size"),
    ],
)
def test_options_that_do_not_fit(
    options: list[object], part: str, smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path
) -> None:
    refused(smalti_cli("tokenize", trained, "--data", photos, "--out", tmp_path / "s", *options), part)
    assert not (tmp_path / "s").exists()


def test_places_that_do_not_fit(smalti_cli: Verb, trained: Path, photos: Path, tmp_path: Path) -> None:
    command = ["tokenize", trained, "--data", photos, "--out"]
    refused(smalti_cli(*command, photos), "is not empty, and no token store")
    (tmp_path / "file").write_text("precious")
    refused(smalti_cli(*command, tmp_path / "file"), "file")
    refused(smalti_cli("tokenize", trained, "--data", tmp_path / "absent", "--out", tmp_path / "s"), "no such folder")
    refused(smalti_cli("tokenize", tmp_path / "absent", "--data", photos, "--out", tmp_path / "s"), "absent")
    for verb in (["tokens"], ["detokenize", "--out", tmp_path / "p"]):
        refused(smalti_cli(*verb, tmp_path / "absent"), "no such folder")
        refused(smalti_cli(*verb, photos), "no token store")
    lock = FolderLock(tmp_path / "taken")
    lock.take()
    refused(smalti_cli(*command, tmp_path / "taken"), "a run is going on in")
    lock.release()


def test_another_tokenizer_is_refused(smalti_cli: Verb, trained: Path, made: Path, tmp_path: Path) -> None:
    model = smalti.load(trained)
    next(model.parameters()).data += 1e-3
    model.save_pretrained(tmp_path / "other")
    found = smalti_cli("detokenize", made, "--out", tmp_path / "p", "--model", tmp_path / "other")
    refused(found, f"its tokens are of {trained}", "not of the tokenizer with weights")
    assert not (tmp_path / "p").exists()


def test_a_tokenizer_that_is_gone_is_named(smalti_cli: Verb, tmp_path: Path) -> None:
    folder = small(tmp_path / "s").folder
    refused(smalti_cli("detokenize", folder, "--out", tmp_path / "p"), "toys/1")
    assert TokenStore.open(folder).description.tokenizer.hash == HASH


@pytest.mark.parametrize("name", ["store.json", "index.npy", "names.bin", "names.npy", "column-0.npy"])
def test_damage_is_one_message(name: str, smalti_cli: Verb, copy: Path) -> None:
    (copy / name).write_bytes(b"\x93NUMPY" if name.endswith("npy") else b"{")
    refused(smalti_cli("tokens", copy), name)
    (copy / name).unlink()
    refused(smalti_cli("tokens", copy), "not finished" if name == "store.json" else name)


def test_names_lead_nowhere_else() -> None:
    assert [picture_name(name) for name in ("a.png", "b/c.jpg", "d")] == ["a.png", "b/c.jpg.png", "d.png"]
    for name in ("/etc/x.png", "../x.png", "a/../../x", "", "a\0b"):
        with pytest.raises(UserError, match="leads out of the folder"):
            picture_name(name)
