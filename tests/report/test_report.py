"""The report reads a run folder and nothing else."""

import builtins
import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smalti.registry import UserError
from smalti.report import read_run, report, rows, write_page
from smalti.report.page import plotly_library
from smalti.report.panels import late_starts
from smalti.report.pictures import course
from tests.report.synthetic import write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run")


class Links(HTMLParser):
    """Collects the pictures of a page and the text it shows."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value for name, value in attrs if name == "src" and value]

    def handle_data(self, data: str) -> None:
        self.text += data


def height(picture: Path) -> int:
    with Image.open(picture) as opened:
        return opened.height


def page_of(run: Path) -> Links:
    links = Links()
    links.feed((run / "report" / "index.html").read_text())
    return links


def whole_text(page: Path) -> str:
    links = Links()
    links.feed(page.read_text())
    return links.text


def test_report_writes_the_curves_and_a_page_that_needs_nothing_beside_it(run: Path) -> None:
    curves, page = report(run)
    with Image.open(curves) as picture:
        assert picture.width > 1000
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 20)
        assert colours is not None
        assert len(colours) > 50, "an empty picture"
    assert page_of(run).sources == []
    before = page.read_text()
    curves.unlink()
    assert 1_000_000 < len(before) < 3_000_000
    assert "url(" not in before
    assert not re.search(r"""(src|href)=["']?(?!data:|#)\w""", before.partition('id="plotly"')[0])


def test_page_shows_measurements_with_units_and_the_recipe_escaped(run: Path) -> None:
    report(run)
    text = page_of(run).text
    for shown in ("31.23 dB", "51.2 %", "chelsea", "# <b>", "generator/pixel/raw", "0.0421", "2,000 generator updates"):
        assert shown in text


def test_report_may_be_drawn_again_and_while_the_run_goes_on(run: Path) -> None:
    report(run)
    (run / "evaluation.json").unlink()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2100, "train/gen')  # killed in the middle of a line
    report(run)
    assert "Nothing was measured yet" in page_of(run).text
    assert "not finished" in page_of(run).text
    assert read_run(run).records[-1]["step"] == 2000


def test_panels_without_data_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    tall = height(report(run)[0])
    line = {"step": 1, "train/generator/pixel/weighted": 0.5, "train/generator/pixel/weight": 1.0}
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert height(report(run)[0]) < tall / 2


def test_a_term_that_waited_is_marked_where_it_starts(run: Path) -> None:
    assert late_starts(read_run(run)) == {"adversarial": 1000}


def test_series_leave_out_lines_without_the_quantity(run: Path) -> None:
    steps, values = read_run(run).series("val/psnr")
    assert steps == [400, 800, 1200, 1600, 2000]
    assert values == sorted(values)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda run: (run / "metrics.jsonl").unlink(), "not a run folder: no metrics.jsonl"),
        (lambda run: (run / "metrics.jsonl").write_text("step\n{}\n"), "metrics.jsonl:1: damaged, it is no JSON"),
        (
            lambda run: (run / "metrics.jsonl").write_text('[]\n{"step": 1e999}\n'),
            "metrics.jsonl:1: expected an object",
        ),
        (lambda run: (run / "metrics.jsonl").write_text('{"step": 1}\n'), "nothing to draw"),
        (
            lambda run: (run / "metrics.jsonl").write_bytes(b'{"a": "\xe9"}\n'),
            r"metrics.jsonl: .*no text .*byte 7 is 0xe9",
        ),
    ],
)
def test_a_damaged_run_folder_is_named(run: Path, break_it: Callable[[Path], Any], message: str) -> None:
    break_it(run)
    with pytest.raises(UserError, match=message):
        report(run)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("evaluation.json", b'{"psnr": 31.', "evaluation.json: damaged, it is no JSON"),
        ("evaluation.json", b"[]", "evaluation.json: expected an object of measurements; it is left out"),
        ("evaluation.json", b"\xff\xfe", "evaluation.json: it is no text in UTF-8 (byte 0 is 0xff)"),
        ("recipe.yaml", b"name: \xe9", "recipe.yaml: it is no text in UTF-8 (byte 6 is 0xe9); it is left out"),
        ("recipe.yaml", b"a: [1\nb: 2\n", "recipe.yaml:2"),
        ("environment.json", b'[{"step": 0, "to', "environment.json: damaged, it is no JSON"),
        ("environment.json", b"{}", "environment.json: expected a list of entries; it is left out"),
        ("diagnosis.jsonl", b"?\n{\xff}\n", "diagnosis.jsonl: 2 of 2 lines cannot be read; they are left out"),
        ("samples/00002000.png", b"\x89PNG half", "00002000.png cannot be read"),
        ("model/model.safetensors", b"\x08\x00", "model.safetensors: "),
    ],
)
def test_a_file_that_is_damaged_is_left_out_of_the_page_and_told(
    run: Path, name: str, content: bytes, line: str
) -> None:
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_bytes(content)
    text = whole_text(write_page([read_run(run)], run / "page.html"))
    assert text.count(line) == 1
    assert str(run) not in text
    assert ("31.23 dB" in text) is ("What was measured cannot be read" not in text) is (name != "evaluation.json")
    assert ("# <b>" in text) is ("The recipe cannot be read" not in text) is (name != "recipe.yaml")


def test_of_several_runs_the_damaged_one_is_told(run: Path) -> None:
    (run / "evaluation.json").write_text('{"psnr": 3')
    other = write_run(run.parent / "well")
    text = whole_text(write_page([read_run(run), read_run(other)], run / "page.html"))
    assert text.count("evaluation.json: damaged") == 1
    assert "Nothing was found in well." in text


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        report(tmp_path / "nowhere")


@pytest.mark.parametrize("package", ["matplotlib", "jinja2", "plotly"])
def test_a_missing_package_names_the_extra(run: Path, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setattr("smalti.report.page.find_spec", lambda name: None if name == package else name)
    plotly_library.cache_clear()
    with pytest.raises(UserError, match=r"smalti\[report\]"):
        report(run)


def test_rows_flatten_and_name_units() -> None:
    evaluation = {
        "objective": {"generator/total": 1.0},
        "psnr": 31.0,
        "usage": {"visual": 0.25},
        "lpips": None,
        "note": "tiny",
        "seconds": 120,
        "x": 0.5,
    }
    assert rows(evaluation) == [
        ("PSNR", "31.00 dB"),
        ("codebook usage (visual)", "25.0 %"),
        ("lpips", "-"),
        ("note", "tiny"),
        ("training time", "120.0 s"),
        ("x", "0.5"),
    ]


def test_course_takes_at_most_six_with_both_ends() -> None:
    assert course(()) == []
    pictures = tuple(Path(f"{step:03d}.png") for step in range(100))
    chosen = course(pictures)
    assert (chosen[0], chosen[-1]) == (pictures[0], pictures[-1])
    assert len(chosen) == len(set(chosen)) == 6


def test_report_needs_no_torch(run: Path) -> None:
    code = "import sys; from smalti.report import report; report(sys.argv[1]); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(run)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
