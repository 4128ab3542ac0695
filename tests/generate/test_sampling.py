"""``smalti sample`` of models of tokens: what an image depends on, where it goes, what is refused in one message."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

import smalti
from smalti.cli._app import app
from smalti.cli._token_sampling import classes_of, guidance_of, token_images
from smalti.interop.decoding import kept_with, tokenizer_for
from smalti.models._decoder_of import FILE
from smalti.models.far import FAR
from smalti.registry import UserError
from tests.generate import toys


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="smalti")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a ``tokenizer``, the ``store`` of its tokens and a ``run`` that learned from it."""
    return toys.trained(tmp_path_factory.mktemp("tokens"), max_steps=4)


@pytest.fixture(scope="module")
def drawn(folder: Path) -> Any:
    """``drawn(**options)``: images of the run."""
    model = smalti.load(folder / "run")
    tokenizer = tokenizer_for(model, kept_with(folder / "run"))

    def draw(**options: Any) -> torch.Tensor:
        return torch.cat(list(token_images(model, tokenizer, **{"seed": 0, "count": 6, **options})))

    return draw


def array(path: Path) -> np.ndarray:
    with np.load(path) as file:
        assert file.files == ["arr_0"]
        found: np.ndarray = file["arr_0"]
    return found


def test_four_commands_end_in_a_picture(folder: Path, tmp_path: Path) -> None:
    """What a run keeps is enough: no option says where the tokenizer is."""
    out = tmp_path / "grid.png"
    result = run("sample", folder / "run", "--out", out, "--count", 9, "--guidance", 2)
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"9 images -> {out}"
    with Image.open(out) as picture:  # 3 x 3 images of 4 x 6 pixels, each pixel a square of 8
        assert picture.size == (3 * (48 + 2) - 2, 3 * (32 + 2) - 2)


def test_places_hold_the_same_images(folder: Path, tmp_path: Path) -> None:
    options = ["--count", 5, "--classes", "2,0", "--seed", 7, "--temperature", 0.8, "--top-k", 3, "--top-p", 0.9]
    places = ["--out", tmp_path / "a.png", "--npz", tmp_path / "b.npz", "--folder", tmp_path / "c"]
    assert run("sample", folder / "run", *options, *places).exit_code == 0
    assert run("sample", folder / "run", *options, "--out", tmp_path / "d.npz", "--batch-size", 2).exit_code == 0
    images = array(tmp_path / "b.npz")
    assert images.shape == (5, 4, 6, 1)
    assert np.array_equal(images, array(tmp_path / "d.npz"))
    files = sorted((tmp_path / "c").iterdir())
    assert [file.name for file in files] == [f"00000{number}.png" for number in range(5)]
    for file, image in zip(files, images, strict=True):
        with Image.open(file) as picture:
            assert np.array_equal(np.asarray(picture), image[..., 0])


def test_image_depends_on_its_seed_and_class_alone(drawn: Any) -> None:
    many = drawn(count=7, batch=3, guidance=2.0)
    torch.testing.assert_close(many, drawn(count=7, batch=7, guidance=2.0))
    torch.testing.assert_close(many[4:6], drawn(seed=4, count=2, classes=[1, 2], guidance=2.0))
    assert (many - drawn(seed=1, count=7, guidance=2.0)).abs().max() > 1e-3


def test_classes_come_in_turn_or_as_asked(drawn: Any) -> None:
    assert torch.equal(drawn(), drawn(classes=[0, 1, 2]))
    assert torch.equal(drawn(classes=[1]), drawn(classes=[1, 1, 1]))


def test_progress_counts_positions_of_all_batches(drawn: Any) -> None:
    seen: list[tuple[int, int]] = []
    drawn(count=5, batch=2, tell=lambda done, of: seen.append((done, of)))
    assert seen == [(number, 18) for number in range(1, 19)]


def test_checkpoints_of_a_run_find_the_tokenizer_too(folder: Path, tmp_path: Path) -> None:
    for number, which in enumerate((f"{folder / 'run'}@last", folder / "run" / "model")):
        assert run("sample", which, "--npz", tmp_path / f"{number}.npz", "--count", 2).exit_code == 0


def test_another_tokenizer_is_refused_and_a_moved_one_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "tokenizer", tmp_path / "moved")
    toys.tokenizer(tmp_path / "other", seed=1)
    shutil.copytree(folder / "run", tmp_path / "run")
    for path in (tmp_path / "run" / FILE, tmp_path / "run" / "model" / FILE):
        path.write_text(path.read_text().replace(str(folder), str(tmp_path / "gone")))
    out = ["--out", tmp_path / "a.npz", "--count", 2]
    lost = run("sample", tmp_path / "run", *out)
    assert lost.exit_code == 2
    assert "gone" in lost.output
    assert "--tokenizer says where it is" in " ".join(lost.output.split())
    other = run("sample", tmp_path / "run", *out, "--tokenizer", tmp_path / "other")
    assert other.exit_code == 2
    assert "another tokenizer (weights" in other.output
    assert run("sample", tmp_path / "run", *out, "--tokenizer", tmp_path / "moved").exit_code == 0


def test_damaged_word_of_the_tokenizer_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "run" / "model", tmp_path / "model")
    for text in ("{", "[]", '{"name": 1}'):
        (tmp_path / "model" / FILE).write_text(text)
        result = run("sample", tmp_path / "model", "--out", tmp_path / "a.npz")
        assert result.exit_code == 2
        assert FILE in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nowhere to write to"),
        (["--out", "x.jpg"], "ends in .png or .npz"),
        (["--out", "x.npz", "--npz", "y.npz"], "expected one of them"),
        (["--npz", "x.png"], "ends in .npz"),
        (["--out", "x.png", "--truncation", "0.5"], "--truncation: not of a far"),
        (["--out", "x.png", "--interpolate", "4"], "--interpolate: not of a far"),
        (["--out", "x.png", "--classes", "0,3"], "3 is not a class of this model (0 to 2)"),
        (["--out", "x.png", "--classes", "2-0"], "begins above its end"),
        (["--out", "x.png", "--classes", "cat"], "expected classes such as 0,1,2"),
        (["--out", "x.png", "--classes", "0", "--label", "1"], "expected one of them"),
        (["--out", "x.png", "--label", "3"], "(0 to 2)"),
        (["--out", "x.png", "--guidance", "much"], "--guidance much: expected a number"),
        (["--out", "x.png", "--guidance", "nan"], "--guidance nan: expected a number"),
        (["--out", "x.png", "--guidance", "three=2"], "no codebook 'three'"),
        (["--out", "x.png", "--guidance", "one=2,one=3"], "one is there twice"),
        (["--out", "x.png", "--guidance-interval", "0"], "expected two positions"),
        (["--out", "x.png", "--guidance-interval", "3,6"], "of the positions 0 to 5"),
        (["--out", "x.png", "--top-p", "0"], "top_p=0"),
        (["--out", "x.png", "--tokenizer", "nowhere"], "nowhere"),
    ],
)
def test_wrong_requests_are_one_message(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run("sample", folder / "run", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_options_of_tokens_are_not_of_gans(tmp_path: Path) -> None:
    smalti.build("tiny-wgan-digits").save_pretrained(tmp_path / "gan")
    for name, value in (("--guidance", "2"), ("--top-k", "3"), ("--temperature", "1"), ("--tokenizer", "x")):
        result = run("sample", tmp_path / "gan", "--out", tmp_path / "x.png", name, value)
        assert result.exit_code == 2
        assert f"{name}: not of a mlp_generator" in result.output


def test_model_without_classes_takes_none(tmp_path: Path, folder: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"width": 16, "depth": 1, "head_depth": 1, "heads": 2}
    FAR(codebooks=toys.CODEBOOKS, grid=toys.GRID, **sizes).save_pretrained(tmp_path / "m")
    where = ["--tokenizer", folder / "tokenizer", "--npz", tmp_path / "x.npz", "--count", 3]
    for option, value, message in (("--classes", "0", "it has no classes"), ("--guidance", "2", "no classes that it")):
        result = run("sample", tmp_path / "m", *where, option, value)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())
    assert "nothing is known of the tokenizer" in run("sample", tmp_path / "m", "--npz", tmp_path / "x.npz").output
    assert run("sample", tmp_path / "m", *where).exit_code == 0
    assert array(tmp_path / "x.npz").shape == (3, 4, 6, 1)


def test_words_of_options() -> None:
    assert guidance_of("1.5", ["one"]) == 1.5
    assert guidance_of(" one = 2 , two=1", ["one", "two"]) == {"one": 2.0, "two": 1.0}
    assert classes_of("0 - 2,2", 3) == [0, 1, 2, 2]
    with pytest.raises(UserError, match="none, it has no classes"):
        classes_of("0", 0)
