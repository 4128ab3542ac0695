"""What cannot be measured or compared is refused by the commands: exit code 2, one message, nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from smalti.extractors.inception_v3 import FILE
from tests.cli.conftest import Verb, smalti_cli  # noqa: F401
from tests.evaluation.tokenizers import photos

Words = list[object]


def unpaired(tmp: Path) -> Words:
    photos(tmp / "made", 2)
    return ["evaluate", f"images:{tmp / 'made'}", "--data", photos(tmp / "in", 3)]


def unequal(tmp: Path) -> Words:
    photos(tmp / "made", 3, sizes=((20, 23),))
    return ["evaluate", f"images:{tmp / 'made'}", "--data", photos(tmp / "in", 3)]


def empty(tmp: Path) -> Words:
    (tmp / "in").mkdir()
    return ["evaluate", "png", "--data", tmp / "in"]


def only_text(tmp: Path) -> Words:
    (tmp / "in").mkdir()
    (tmp / "in" / "readme.txt").write_text("no image")
    return ["evaluate", "png", "--data", tmp / "in"]


def nowhere(tmp: Path) -> Words:
    return ["evaluate", "png", "--data", tmp / "nowhere"]


def one_image(tmp: Path) -> Words:
    return ["evaluate", "png", "--data", photos(tmp / "in", 1), "--metrics", "psnr,fid", "--inception", "random"]


def wrong_file(tmp: Path) -> Words:
    (tmp / FILE.name).write_bytes(b"something else")
    words: Words = ["evaluate", "png", "--data", photos(tmp / "in", 3), "--metrics", "fid"]
    return [*words, "--inception", tmp / FILE.name]


def unreadable(tmp: Path) -> Words:
    (tmp / "in").mkdir()
    (tmp / "in" / "a.png").write_bytes(b"no image")
    return ["evaluate", "png", "--data", tmp / "in"]


def unknown_protocol(tmp: Path) -> Words:
    return ["evaluate", "png", "--data", photos(tmp / "in", 3), "--protocol", "admm"]


def too_large(tmp: Path) -> Words:
    Image.new("RGB", (64, 64)).save(photos(tmp / "in", 1) / "large.png")
    return ["evaluate", "png", "--data", tmp / "in", "--max-pixels", "100"]


CASES = {
    unpaired: "1 of 3 originals have no reconstruction",
    unequal: "23 x 20 pixels, its original has 24 x 20 under this protocol",
    empty: "no image in this folder",
    only_text: "no image in this folder",
    nowhere: "nowhere",
    one_image: "fid needs at least 2 images, there is 1",
    wrong_file: "6726825d",
    unreadable: "none of the 1 images",
    unknown_protocol: "did you mean 'adm'",
    too_large: "none of the 2 images",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_refused_with_one_message(smalti_cli: Verb, tmp_path: Path, case: Callable[[Path], Words]) -> None:  # noqa: F811
    done = smalti_cli(*case(tmp_path), "--out", tmp_path / "out", "--device", "cpu", "--no-cache")
    assert done.exit_code == 2, done.output
    assert CASES[case] in done.stderr
    assert done.stderr.count("error:") == 1
    assert done.stdout == ""
    assert not (tmp_path / "out" / "evaluation.json").exists()
