"""The page of a comparison in a browser: it sorts, its sliders uncover, its console is silent, it asks nobody."""

import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smalti.cli._app import app
from smalti.evaluation._plot import plot, ticks
from tests.browser import PHONE, Opened
from tests.cli.conftest import Verb, smalti_cli  # noqa: F401
from tests.evaluation.tokenizers import photos

TOKENIZERS = ("jpeg:q=80", "webp:q=20", "jpeg:q=5", "png")


@pytest.fixture(name="written", scope="module")
def _written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of four codecs on three images, written by the command."""
    folder = tmp_path_factory.mktemp("compared")
    data, out, page = photos(folder / "in", 3), folder / "out", folder / "page.html"
    of = [out / re.sub(r"\W", "-", name) for name in TOKENIZERS]
    common = ["--data", data, "--protocol", "smalti@64", "--out", out]
    for words in (["evaluate", *TOKENIZERS, *common], ["compare", *of, "--html", page]):
        done = CliRunner().invoke(app, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    return page


def column(opened: Opened, number: int) -> list[str]:
    found: list[str] = opened.page.locator(f"tbody td:nth-child({number})").all_text_contents()
    return found


def test_a_reader_sorts_compares_and_finds_the_worst(written: Path, open_page: Callable[..., Opened]) -> None:
    opened = open_page(written)
    page = opened.page
    assert page.locator("th").all_text_contents() == ["tokenizer", "PSNR, dB", "SSIM", "bits per pixel"]
    assert column(opened, 1) == list(TOKENIZERS)
    for number in (2, 3, 4):
        head, button = page.locator("th").nth(number - 1), page.locator("th button").nth(number - 1)
        button.click()
        rising = [float(text.replace(",", "")) for text in column(opened, number) if text != "-"]
        assert rising == sorted(rising)
        assert head.get_attribute("aria-sort") == "ascending"
        button.press("Enter")  # by keyboard, too
        falling = [float(text.replace(",", "")) for text in column(opened, number) if text != "-"]
        assert falling == rising[::-1]
        assert head.get_attribute("aria-sort") == "descending"
    page.locator("th button").first.click()
    assert column(opened, 1) == sorted(TOKENIZERS)
    assert page.locator("th[aria-sort]").count() == 1
    # rate and distortion: a point for each with finite decibels, a line through the two qualities of jpeg
    assert sorted(page.locator("svg text.name").all_text_contents()) == sorted(TOKENIZERS[:3])
    assert page.locator("svg polyline").count() == 1
    jpeg80, jpeg5 = (page.locator("svg circle", has_text=name).bounding_box() for name in ("jpeg:q=80", "jpeg:q=5"))
    assert jpeg80["x"] > jpeg5["x"]
    assert jpeg80["y"] < jpeg5["y"]
    # the worst images of each, the worst first
    captions = " ".join(page.locator("figcaption").all_text_contents())
    worst = [float(text) for text in re.findall(r"([\d.]+) dB", captions)]
    assert len(worst) == 9
    assert all(worst[start : start + 3] == sorted(worst[start : start + 3]) for start in (0, 3, 6))
    assert all(page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth === 64)"))
    assert opened.complaints == []
    assert opened.requests == []


def test_a_slider_uncovers_what_lies_below(written: Path, open_page: Callable[..., Opened]) -> None:
    opened = open_page(written)
    slider, above = (opened.page.locator(f"figure {what}").first for what in ("input", "img + img"))
    cut = "image => getComputedStyle(image).clipPath.match(/[\\d.]+%/)[0]"
    assert above.evaluate(cut) == "50%"
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    opened.page.mouse.click(box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2)
    at = int(slider.input_value())
    assert at > 75
    assert above.evaluate(cut) == f"{100 - at}%"
    slider.press("ArrowLeft")
    assert above.evaluate(cut) == f"{101 - at}%"
    assert opened.complaints == []


@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_both_colours(written: Path, open_page: Callable[..., Opened], dark: bool) -> None:
    opened = open_page(written, PHONE, dark)
    assert opened.overflow() == 0
    colours: Any = "[getComputedStyle(document.body).color, getComputedStyle(document.querySelector('svg text')).fill]"
    ink, of_plot = opened.page.evaluate(colours)
    assert ink == of_plot
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > 380) == dark


def test_names_that_are_markup_are_text(smalti_cli: Verb, tmp_path: Path, open_page: Callable[..., Opened]) -> None:  # noqa: F811
    data = photos(tmp_path / "in", 2)
    (data / "0.png").rename(data / "<img src=x onerror=alert(1)>.png")
    out = tmp_path / "out"
    assert smalti_cli("evaluate", "jpeg:q=5", "--data", data, "--out", out).exit_code == 0
    told = json.loads((out / "evaluation.json").read_text())
    told["tokenizer"]["name"] = "</script><b>bold</b><!--WORST-->"
    told["numbers"]["<i>odd</i>"] = 1.0
    (out / "evaluation.json").write_text(json.dumps(told))
    assert smalti_cli("compare", out, "--html", tmp_path / "page.html").exit_code == 0
    opened = open_page(tmp_path / "page.html")
    assert column(opened, 1) == ["</script><b>bold</b><!--WORST-->"]
    assert "<i>odd</i>" in opened.page.locator("th").all_text_contents()
    assert opened.page.locator("b, i, img[src=x]").count() == 0
    assert any("<img src=x" in text for text in opened.page.locator("figcaption").all_text_contents())
    assert (opened.complaints, opened.requests) == ([], [])


@pytest.mark.parametrize("values", [[26.8, 37.4], [0.0], [5.0, 5.0], [-3.0, 1.0], [1e5, 3.2e6], [0.5625, 0.5626]])
def test_ticks_are_round_and_hold_all_values(values: list[float]) -> None:
    found = ticks(values)
    assert found[0] <= min(values) <= max(values) <= found[-1]
    assert 2 <= len(found) <= 9
    steps = {round(b - a, 12) for a, b in pairwise(found)}
    assert max(steps) == pytest.approx(min(steps))


def test_names_of_near_points_cover_neither_each_other_nor_points() -> None:
    drawn = plot([("quickstart", 0.56, 31.6), ("jpeg:q=26", 0.55, 31.7), ("jpeg:q=28", 0.57, 31.5), ("far", 2.0, 40.0)])
    found = re.findall(r'class="name" x="([\d.]+)" y="([\d.]+)">([^<]+)<', drawn)
    boxes = [(float(x), float(y) - 10, float(x) + 7 * len(name), float(y)) for x, y, name in found]
    points = re.findall(r'cx="([\d.]+)" cy="([\d.]+)"', drawn)
    boxes += [(float(x) - 4, float(y) - 4, float(x) + 4, float(y) + 4) for x, y in points]
    assert len(boxes) == 8
    for index, one in enumerate(boxes[:4]):
        for other in boxes[index + 1 :]:
            assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
