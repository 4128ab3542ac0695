"""Results side by side: what differs is refused or marked, tables and the page say what the results say."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from smalti.evaluation.comparison import compared, markdown, text
from smalti.evaluation.page import page
from smalti.evaluation.protocol import protocol_named
from smalti.evaluation.results import Result, described
from smalti.registry import UserError
from tests.cli.conftest import Verb, smalti_cli  # noqa: F401
from tests.evaluation.tokenizers import photos


def result(name: str, psnr: float, rate: float | None = 1.0, protocol: str = "smalti", **changes: Any) -> Result:
    numbers = {"psnr": psnr} | ({} if rate is None else {"bits_per_pixel": rate})
    made = Result(
        tokenizer={"name": name, "origin": name, "class": "X", "factor": 4},
        protocol=described(protocol_named(protocol)),
        data={"path": "in", "images": 3, "names_sha256": "0" * 64},
        samples=3,
        limited=False,
        numbers=numbers,
        intervals={"psnr": (psnr - 1, psnr + 1)},
        images=[{"index": index, "name": f"<{index}>.png", "psnr": psnr + index} for index in range(3)],
    )
    return replace(made, **changes)


def test_a_table_has_a_row_for_each_and_a_column_for_each_number() -> None:
    found = compared([result("one", 30.123456), result("two", 28.0, rate=None)])
    assert text(found).splitlines()[:3] == [
        "tokenizer    psnr  bits_per_pixel",
        "one        30.123               1",
        "two            28               -",
    ]
    assert markdown(found).splitlines()[:3] == [
        "| tokenizer | psnr | bits_per_pixel |",
        "|---|---|---|",
        "| one | 30.123 | 1 |",
    ]
    assert "3 images of in, protocol smalti (" in text(found)


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (result("b", 1.0, protocol="smalti@128"), "protocol.size=128, a has 256"),
        (result("b", 1.0, protocol="smalti-uint8"), "protocol.quantize='round', a has 'none'"),
        (result("b", 1.0, data={"path": "else", "images": 3, "names_sha256": "1" * 64}), "data='else', a has 'in'"),
        (result("b", 1.0, samples=2), "samples=2, a has 3"),
    ],
)
def test_what_was_measured_otherwise_is_refused_or_marked(other: Result, field: str) -> None:
    with pytest.raises(UserError, match=r"not to be compared") as caught:
        compared([result("a", 2.0), other])
    assert f"  b: {field}" in str(caught.value)
    found = compared([result("a", 2.0), other], mixed=True)
    row = text(found).splitlines()[2]
    assert row.split() == ["b", "1*", "1*"]
    assert any(line.startswith("* b: ") for line in text(found).splitlines())


def test_tokenizers_of_one_name_are_numbered() -> None:
    assert list(compared([result("a", 1.0), result("a", 2.0), result("a", 3.0)]).names) == ["a", "a (2)", "a (3)"]


def test_the_page_holds_the_numbers_escapes_names_and_asks_nothing_of_anybody() -> None:
    made = page(compared([result("<b>one</b>", 30.0, 0.5), result("two", 28.0, 0.25), result("three", 27.0, None)]))
    assert "<b>one</b>" not in made
    assert made.count(html.escape("<b>one</b>")) >= 3
    assert html.escape("<0>.png: 30.00 dB") in made
    assert made.count("<circle") == 2
    assert re.findall(r'data-value="([^"]+)"', made) == ["30.0", "0.5", "28.0", "0.25", "27.0"]
    assert not re.search(r"https?://|src=|@import|url\(", made)
    assert "<!--" not in made


def test_compare_prints_writes_and_refuses(smalti_cli: Verb, tmp_path: Path) -> None:  # noqa: F811
    data = photos(tmp_path / "in")
    common = ("--data", data, "--protocol", "smalti@16")
    done = smalti_cli("evaluate", "jpeg:q=10", "png", *common, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split() == ["tokenizer", "psnr", "ssim", "bits_per_pixel"]
    folders = sorted((tmp_path / "out").iterdir())
    assert [folder.name for folder in folders] == ["jpeg-q-10", "png"]
    both = smalti_cli("compare", *folders, "--html", tmp_path / "page.html", "--json")
    assert both.exit_code == 0, both.output
    assert [row["name"] for row in json.loads(both.stdout)] == ["jpeg:q=10", "png"]
    assert json.loads(both.stdout)[1]["numbers"]["psnr"] is None  # infinite
    written = (tmp_path / "page.html").read_text()
    assert "jpeg:q=10" in written
    assert written.count("<figure>") == 4  # of jpeg; a png that is equal has no finite decibels to be worst by
    assert written.count("data:image/png;base64,") == 8
    assert "| jpeg:q=10 |" in smalti_cli("compare", *folders, "--markdown").stdout
    again = smalti_cli("evaluate", "jpeg:q=10", "png", *common, "--out", tmp_path / "out")
    assert again.exit_code == 2
    assert "--resume keeps it" in again.stderr
    kept = smalti_cli("evaluate", "jpeg:q=10", "png", *common, "--out", tmp_path / "out", "--resume")
    assert kept.stdout == done.stdout
    other = smalti_cli("evaluate", "png", "--data", data, "--protocol", "adm@16", "--out", tmp_path / "adm")
    assert other.exit_code == 0
    mixed = smalti_cli("compare", folders[0], tmp_path / "adm")
    assert mixed.exit_code == 2
    assert "protocol.crop='adm_center'" in mixed.stderr
    assert smalti_cli("compare", folders[0], tmp_path / "adm", "--allow-mixed").exit_code == 0
    wrong = smalti_cli("evaluate", "png", "--data", data, "--out", tmp_path / "adm", "--resume")
    assert wrong.exit_code == 2
    assert "choose another --out" in wrong.stderr


def test_evaluate_takes_pairs_and_prints_its_schema(smalti_cli: Verb, tmp_path: Path) -> None:  # noqa: F811
    data = photos(tmp_path / "in")
    found = smalti_cli("evaluate", f"images:{data}", "--data", data, "--metrics", "psnr", "--json")
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["numbers"]["psnr"] is None  # equal images have infinitely many decibels
    shown = json.loads(smalti_cli("evaluate", "--schema").stdout)
    assert json.loads(found.stdout).keys() == shown["properties"].keys()
    nothing = smalti_cli("evaluate")
    assert nothing.exit_code == 2
    assert "expected at least one MODEL, and --data FOLDER" in nothing.stderr


def test_protocols_are_listed_shown_and_compared(smalti_cli: Verb) -> None:  # noqa: F811
    listed = smalti_cli("protocols", "list").stdout
    assert protocol_named("adm").hash in listed
    assert len(json.loads(smalti_cli("protocols", "list", "--json").stdout)) == len(listed.splitlines())
    shown = smalti_cli("protocols", "show", "adm")
    assert "features.resize: tf  (not checked against the original)" in shown.stdout
    assert json.loads(smalti_cli("protocols", "show", "adm@64", "--json").stdout)["fields"]["size"] == 64
    different = smalti_cli("protocols", "diff", "adm", "llamagen")
    assert different.exit_code == 1
    assert "ssim.data_range: 1.0 -> 2.0" in different.stdout
    same = smalti_cli("protocols", "diff", "fqgan", "llamagen", "--json")
    assert (same.exit_code, json.loads(same.stdout)) == (0, {})
    assert "did you mean" in smalti_cli("protocols", "show", "amd").stderr
